"""Every kernel at its true size: is it right, and how fast is it compared with a library on the same tensors?

`python -m bench.gpu.step_kernels` needs a GPU. Inputs are random; the reference is the plain implementation in float32.
The error is the norm of the difference over the norm of the reference. Exit code 1 means a kernel is wrong or fails.
`TRITON_INTERPRET=1 python -m bench.gpu.step_kernels --tiny` is a dry run on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from bench.gpu.common import choose_device, timed
from bench.gpu.step_libraries import flex, grouped, product, sdpa
from bench.gpu.step_shapes import random_weight
from bench.report import DRY_RUN, RESULTS, Report, Spread, conditions
from engine.errors import describe_error
from engine.kernels.attention import attend
from engine.kernels.linear import quantized_linear
from engine.kernels.mixture import mixture
from engine.kernels.vocabulary import gumbel_noise, stats_from_hidden, stats_from_logits
from engine.logit_stats import LogitStats
from engine.ops import vocabulary as plain_vocabulary
from engine.ops.experts import experts
from engine.quantized import FORMATS, QuantizedWeight
from train.program import reports_errors

CAP, KEPT = 30.0, 4  # softcap; number of likeliest tokens that are compared
MAX_ERROR = 1e-2  # relative; bfloat16 has 8 bits, sums are in float32
HEADER = ("kernel", "what", "error", "ours, ms", "library, ms", "library")


@dataclass(frozen=True)
class Sizes:
    """tokens of a canvas, hidden, size of an expert, experts, top_k, vocab, prompt tokens."""

    tokens: int = 256
    hidden: int = 2816
    size: int = 704
    experts: int = 128
    top_k: int = 8
    vocab: int = 262_144
    contexts: tuple[int, ...] = (512, 2048, 8192)
    window: int = 1024


TINY_SIZES = Sizes(8, 64, 32, 4, 2, 300, (20,), 16)


@dataclass(frozen=True)
class Case:
    """A kernel with its inputs. ours and reference return the values to compare; library is only timed."""

    kernel: str
    what: str
    ours: Callable[[], Tensor]
    reference: Callable[[], Tensor]
    library: Callable[[], object] | None = None
    library_name: str = "–"


def cases(sizes: Sizes, device: torch.device, dtype: torch.dtype, only: str = "") -> Iterator[Case]:
    """The cases of the kernels whose name contains `only`."""
    kinds = {"mixture": _mixtures, "product": _products, "attention": _attentions, "vocabulary": _vocabularies}
    for name, made in kinds.items():
        if only in name:
            yield from made(sizes, device, dtype)


def _mixtures(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    routings = {
        f"{sizes.tokens} tokens": _routing(sizes, sizes.tokens, device),
        "one token": _routing(sizes, 1, device),
        "experts half empty": _routing(sizes, sizes.tokens, device) // 2,
        "all to one": torch.full((sizes.tokens, 1), sizes.experts - 1, device=device),
    }
    shapes = (sizes.experts, 2 * sizes.size, sizes.hidden), (sizes.experts, sizes.hidden, sizes.size)
    for kind in FORMATS:
        gate_up, down = (random_weight(torch.empty(s, device="meta", dtype=dtype), kind, device) for s in shapes)
        for what, indices in routings.items():
            x = torch.randn(len(indices), sizes.hidden, device=device, dtype=dtype)
            weights = torch.rand(indices.shape, device=device)

            library = None
            if kind == "plain" and device.type == "cuda" and hasattr(torch, "_grouped_mm"):
                library = grouped(x, weights, indices, gate_up.numbers, down.numbers)
            inputs = x, weights, indices, gate_up, down
            ours, reference = partial(mixture, *inputs), partial(_mixture, *inputs)
            yield Case("mixture", f"{kind}, {what}", ours, reference, library, "torch._grouped_mm" if library else "–")


def _mixture(x: Tensor, weights: Tensor, indices: Tensor, gate_up: QuantizedWeight, down: QuantizedWeight) -> Tensor:
    return experts(x.float(), weights, indices, gate_up.dequantize(), down.dequantize())


def _routing(sizes: Sizes, tokens: int, device: torch.device) -> Tensor:
    return torch.rand(tokens, sizes.experts, device=device).topk(sizes.top_k, dim=-1).indices


def _products(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    x = torch.randn(sizes.tokens, sizes.hidden, device=device, dtype=dtype)
    like = torch.empty(3 * sizes.hidden, sizes.hidden, device="meta", dtype=dtype)
    for kind in FORMATS:
        weight = random_weight(like, kind, device)
        library, name = product(x, 3 * sizes.hidden, kind)
        yield Case("product", kind, partial(quantized_linear, x, weight), partial(_product, x, weight), library, name)


def _product(x: Tensor, weight: QuantizedWeight) -> Tensor:
    return F.linear(x.float(), weight.dequantize())


def _attentions(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Keys as in the prefix cache, as in a recorded step (partly masked), and in fp8."""
    sliding = sizes.window - 1 + sizes.tokens
    shapes = [("sliding", 8, 256, sliding)] + [("full", 2, 512, n + sizes.tokens) for n in sizes.contexts]
    for what, kv_heads, dim, keys in shapes:
        query = torch.randn(1, 16, sizes.tokens, dim, device=device, dtype=dtype) / dim**0.5
        buffer = torch.randn(2, 1, kv_heads, keys + 100, dim, device=device, dtype=dtype)
        key, value = buffer[0, :, :, 50 : 50 + keys], buffer[1, :, :, 50 : 50 + keys]
        mask = (torch.arange(keys, device=device) >= keys // 8)[None, None, None]
        small = key.to(torch.float8_e4m3fn), value.to(torch.float8_e4m3fn)
        name, inputs = f"{what}, {keys} keys", (query, key, value)
        exact = partial(sdpa, *inputs, None, torch.float32)
        ours = partial(attend, *inputs)
        yield Case("attention", name, ours, exact, partial(sdpa, *inputs, None, dtype), "SDPA")
        if device.type == "cuda":
            yield Case("attention", name, ours, exact, flex(*inputs), "FlexAttention")
        yield Case(
            "attention",
            f"{name}, an eighth masked",
            partial(attend, *inputs, mask),
            partial(sdpa, *inputs, mask, torch.float32),
            partial(sdpa, *inputs, mask, dtype),
            "SDPA",
        )
        yield Case(
            "attention",
            f"{name} in fp8",
            partial(attend, query, *small),
            partial(sdpa, query, *small, None, torch.float32),
            partial(sdpa, query, *small, None, dtype),
            "SDPA after conversion",
        )


def _vocabularies(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    head = random_weight(torch.empty(sizes.vocab, sizes.hidden, device="meta", dtype=dtype), "plain", device)
    for rows in (sizes.tokens, sizes.tokens // 4):
        hidden = 3 * torch.randn(rows, sizes.hidden, device=device, dtype=dtype)
        temperature = torch.full((rows,), 0.6, device=device)
        seeds = torch.arange(rows, device=device, dtype=torch.int32)
        noise = gumbel_noise(seeds, sizes.vocab)

        inputs = hidden, head, temperature
        library = partial(_plain_readout, *inputs, noise, dtype)
        yield Case(
            "vocabulary",
            f"head inside, {rows} rows",
            partial(_fused_readout, *inputs, seeds),
            partial(_plain_readout, *inputs, noise, torch.float32),
            library,
            "PyTorch, operation by operation",
        )
        yield Case(
            "vocabulary",
            f"of logits, {rows} rows",
            partial(_readout_of_logits, *inputs, seeds),
            library,
            library,
            "PyTorch, operation by operation",
        )


def _plain_readout(
    hidden: Tensor, head: QuantizedWeight, temperature: Tensor, noise: Tensor, dtype: torch.dtype
) -> Tensor:
    logits = F.linear(hidden.to(dtype), head.numbers.to(dtype)).float()
    return _comparable(plain_vocabulary.logit_stats(torch.tanh(logits / CAP) * CAP, temperature, KEPT, noise))


def _fused_readout(hidden: Tensor, head: QuantizedWeight, temperature: Tensor, seeds: Tensor) -> Tensor:
    return _comparable(stats_from_hidden(hidden, head, CAP, temperature, KEPT, seeds))


def _readout_of_logits(hidden: Tensor, head: QuantizedWeight, temperature: Tensor, seeds: Tensor) -> Tensor:
    return _comparable(stats_from_logits(F.linear(hidden, head.numbers), CAP, temperature, KEPT, seeds))


def _comparable(seen: LogitStats) -> Tensor:
    """The values without token ids, which may differ where two tokens are equally likely."""
    return torch.cat((seen.entropy, seen.log_probability, seen.top_probabilities.flatten()))


def _library(case: Case, device: torch.device, repeats: int) -> tuple[Spread | None, str]:
    """(time of the library function, its name); without a time if there is none or if it fails."""
    if case.library is None:
        return None, case.library_name
    try:
        return timed(case.library, device, repeats), case.library_name
    except Exception as error:  # an unsupported GPU or shape; every library raises its own classes
        return None, f"{case.library_name} fails: {describe_error(error)}"


def _error(case: Case) -> float:
    """Norm of the difference to the reference over the norm of the reference."""
    expected, found = case.reference().float(), case.ours().float()
    return float((found - expected).norm() / expected.norm())


@torch.inference_mode()
def main(
    repeats: Annotated[int, typer.Option(min=2, help="Measured runs of each kernel.")] = 20,
    only: Annotated[str, typer.Option(help="Only kernels whose name contains this.")] = "",
    tiny: Annotated[bool, typer.Option(help="Dry run at small shapes.")] = False,
    name: Annotated[str, typer.Option(help="Name of the result files.")] = "step_kernels",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Check and time the kernels at the true shapes of the 26B."""
    device = choose_device(tiny, "bench.gpu.step_kernels", kernels=True)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rows: list[list[str]] = []
    figures: list[dict[str, Any]] = []
    wrong = []
    machine = conditions(device)
    notes = [
        f"Error: norm of the difference to the reference in float32 over its norm; above {MAX_ERROR} it is wrong.",
        f"Medians of {repeats} calls after warm-up, with launches; tensors that fit the cache may stay in it.",
        *([DRY_RUN] if tiny else []),
    ]
    for case in cases(TINY_SIZES if tiny else Sizes(), device, dtype, only):
        try:
            difference = _error(case)
            ours = timed(case.ours, device, repeats)
        except Exception as error:  # compilers and drivers raise their own classes; go on with the other kernels
            print(f"{case.kernel} | {case.what} | FAILS: {describe_error(error)}", flush=True)
            wrong.append(f"{case.kernel}, {case.what}")
            continue
        if not difference < MAX_ERROR:
            wrong.append(f"{case.kernel}, {case.what}")
        library, library_name = _library(case, device, repeats)
        rows.append(
            [case.kernel, case.what, f"{difference:.1e}", f"{ours.median:.3f}",
             f"{library.median:.3f}" if library else "–", library_name]
        )  # fmt: skip
        figures.append(
            {"kernel": case.kernel, "what": case.what, "error": difference, "ours": ours,
             "library": library, "library_name": library_name}
        )  # fmt: skip
        Report("Kernels at true sizes", machine, HEADER, rows, notes, figures).write(name, out)
        print(" | ".join(rows[-1]), flush=True)
    if wrong:
        print(f"WRONG: {'; '.join(wrong)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(reports_errors(main))

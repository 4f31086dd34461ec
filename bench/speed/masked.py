"""What the cache of a masked model saves and what it changes: passes, time and tokens, against passes over everything.

`python -m bench.speed.masked` measures a model with random weights, which says how long passes take but nothing about
how much real predictions change. `--model FOLDER` measures a published checkpoint on this project's own code, with the
agreement that counts. Also prints the memory that a 7B needs, by accounting.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.report import RESULTS, Report, conditions, interleaved, percentile, ratios
from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import DenoiseRequest, DenoiseResult
from engine.checkpoints.qwen2 import weight_bytes
from engine.device import choose_device, choose_dtype, set_threads
from engine.errors import UsageError
from engine.masked.config import MaskedConfig, MaskedSampling
from engine.masked.denoiser import MaskedDenoiser
from engine.memory_use import key_bytes
from engine.models.qwen2 import Qwen2
from infill.complete.loaded_model import LoadedModel
from infill.settings import Settings
from train.program import reports_errors

SHAPES = {
    "tiny": MaskedConfig(512, 64, 128, 2, 4, 2, 16, tied=False, mask=1, max_positions=4096),
    "small": MaskedConfig(8192, 512, 1536, 8, 8, 2, 64, tied=False, mask=1, max_positions=8192),
    "0.5b": MaskedConfig(151_936, 896, 4864, 24, 14, 2, 64, tied=False, mask=151_665, max_positions=32_768),
    "7b": MaskedConfig(152_064, 3584, 18_944, 28, 28, 4, 128, tied=False, mask=151_666, max_positions=32_768),
}
REFRESH = (1, 4, 8, 1_000_000)  # passes between whole ones; the last one means never
TIMED = ("exact", "cached", "next key, cached")  # absolute times are shown of a GPU only
CONTEXT = 4096  # tokens, of which the table of memory counts keys and values
SOURCE = Path(__file__).parents[2] / "engine"


@dataclass(frozen=True)
class Case:
    """The tokens of a file with a hole, and the same after one more key. truth: what was in the hole."""

    before: list[int]
    after: list[int]
    typed: int
    truth: list[int]

    def request(self, sampling: MaskedSampling, slots: int, after_key: bool = False) -> DenoiseRequest:
        known = [*self.before, self.typed] if after_key else self.before
        return DenoiseRequest(known[:-8], Canvas.of(Known(known[-8:]), Slots(slots), Known(self.after)), sampling)


def random_model(config: MaskedConfig, device: torch.device, dtype: torch.dtype) -> Qwen2:
    torch.manual_seed(0)
    with torch.device("meta"):
        model = Qwen2(config).to(dtype).eval().requires_grad_(False)
    model = model.to_empty(device=device)
    for name, parameter in model.named_parameters():
        parameter.normal_(0, 0.02) if parameter.ndim == 2 else parameter.fill_("norm" in name)
    return model


def random_cases(config: MaskedConfig, contexts: Sequence[int], slots: int) -> list[Case]:
    draw = random.Random(1)
    cases = []
    for context in contexts:
        tokens = [draw.randrange(2, min(config.vocab_size, 8000)) for _ in range(context + slots + 1)]
        at = 2 * context // 3
        cases.append(Case(tokens[:at], tokens[at:context], tokens[-1], tokens[context : context + slots]))
    return cases


def code_cases(model: LoadedModel, contexts: Sequence[int], slots: int) -> list[Case]:
    """Holes of `slots` tokens in files of the engine."""
    files = sorted(SOURCE.glob("*.py"))
    texts = [model.family.tokens.encode(file.read_text("utf-8")) for file in files]
    cases = []
    for context in contexts:
        long = [tokens for tokens in texts if len(tokens) > context + slots][:3]
        for tokens in long:
            at = 2 * context // 3
            after = tokens[at + slots + 1 : context + slots + 1]
            cases.append(Case(tokens[:at], after, tokens[at], tokens[at + 1 : at + 1 + slots]))
    return cases


def milliseconds(times: dict[str, float]) -> str:
    return f"{times['p50']:.0f} ({times['p95']:.0f})"


def equal_share(one: DenoiseResult, other: DenoiseResult) -> float:
    """The share of the slots with the same token."""
    return float((one.tokens[one.columns] == other.tokens[other.columns]).float().mean())


def measure(exact: MaskedDenoiser, cached: MaskedDenoiser, case: Case, slots: int, repeats: int) -> dict[str, Any]:
    """One case: times of a whole infill and of the infill after the next key, cached and exact, in turns."""
    sampling = MaskedSampling(max_steps=slots, temperature=0.0, top_p=None)
    first, second = case.request(sampling, slots), case.request(sampling, slots, after_key=True)
    results: dict[str, DenoiseResult] = {}
    rows: dict[str, int] = {}

    def run(name: str, denoiser: MaskedDenoiser, request: DenoiseRequest, cold: bool) -> Callable[[], None]:
        def work() -> None:
            if cold:
                denoiser.kept.clear()
            before = denoiser.rows
            (results[name],) = denoiser.run([request])
            rows[name] = denoiser.rows - before

        return work

    contestants = {
        "exact": run("exact", exact, first, True),
        "cached": run("cached", cached, first, True),
        "next key, exact": run("next key, exact", exact, second, True),
        "next key, cached": run("next key, cached", cached, second, False),
    }
    for warm_up in contestants.values():
        warm_up()
    times = interleaved(contestants, repeats)
    agreement = {}
    for refresh in REFRESH:
        other = MaskedDenoiser(cached.model, cached.cache)
        other.refresh_steps = refresh
        agreement[refresh] = equal_share(results["exact"], other.run([first])[0])
    return {
        "context": len(case.before) + len(case.after),
        "infill": ratios(times["exact"], times["cached"]),
        "next_key": ratios(times["next key, exact"], times["next key, cached"]),
        "ms": {name: {"p50": percentile(ms, 0.5), "p95": percentile(ms, 0.95)} for name, ms in times.items()},
        "passes": results["exact"].steps,
        "rows": dict(rows),
        "agreement": agreement,
        "next_key_agreement": equal_share(results["next key, exact"], results["next key, cached"]),
        "right": {
            name: float((torch.tensor(case.truth) == results[name].tokens[results[name].columns]).float().mean())
            for name in ("exact", "cached")
        },
    }


def memory(config: MaskedConfig) -> dict[str, float]:
    """GiB of weights and the keys and values of CONTEXT tokens, by the type of the layers' weights."""
    keys = key_bytes(config, CONTEXT, 2)
    wide = weight_bytes(config, torch.bfloat16)
    layers = 2 * (wide - weight_bytes(config, torch.bfloat16, int4=True)) / (2 - 0.5625)
    sizes = {"bfloat16": wide, "fp8": wide - layers / 2, "int4": weight_bytes(config, torch.bfloat16, int4=True)}
    return {name: (size + keys) / 2**30 for name, size in sizes.items()}


def main(
    model: Annotated[str | None, typer.Option(help="A published checkpoint; without it, random weights.")] = None,
    shape: Annotated[str, typer.Option(help=f"Of random weights: {', '.join(SHAPES)}.")] = "small",
    context: Annotated[list[int] | None, typer.Option(help="Repeatable; tokens around the hole.")] = None,
    slots: Annotated[int, typer.Option(min=1, help="Tokens of the hole.")] = 16,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    threads: Annotated[int, typer.Option(min=1)] = 8,
    write: Annotated[str | None, typer.Option(help="Name of the result files.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure passes with kept keys against passes over everything."""
    if shape not in SHAPES:
        raise UsageError(f"There is no shape {shape!r}; choose {', '.join(SHAPES)}.")
    contexts, on = context or [256, 1024], choose_device(device)
    set_threads(threads)
    if model is None:
        weights: Any = random_model(SHAPES[shape], on, choose_dtype(on, "auto"))
        cases = random_cases(SHAPES[shape], contexts, slots)
    else:
        loaded = LoadedModel.load(Settings(model=model, device=device, threads=threads))
        if not isinstance(loaded.denoiser, MaskedDenoiser):
            raise UsageError(f"The model {model} does not fill masks; give the folder of one that does.")
        weights, cases = loaded.denoiser.model, code_cases(loaded, contexts, slots)
    exact, cached = MaskedDenoiser(weights, cached=False), MaskedDenoiser(weights)
    figures = [measure(exact, cached, case, slots, repeats) for case in cases]
    rows = [
        [
            str(one["context"]),
            str(one["passes"]),
            f"{one['rows']['exact']} → {one['rows']['cached']} → {one['rows']['next key, cached']}",
            f"{one['infill']}",
            f"{one['next_key']}",
            *(f"{share:.0%}" for share in one["agreement"].values()),
            f"{one['next_key_agreement']:.0%}",
            f"{one['right']['exact']:.0%} → {one['right']['cached']:.0%}",
            *(milliseconds(one["ms"][name]) for name in TIMED if on.type != "cpu"),
        ]
        for one in figures
    ]
    header = [
        "context", "passes", "rows: exact → cached → next key", "infill, times faster", "next key, times faster",
        "same tokens, refresh 1", "4", "8", "never", "next key", "tokens as written",
    ]  # fmt: skip
    header += [f"{name}, ms p50 (p95)" for name in TIMED if on.type != "cpu"]
    sizes = ", ".join(f"{size:.1f} GiB in {name}" for name, size in memory(SHAPES["7b"]).items())
    notes = [
        f"A 7B with keys and values of {CONTEXT} tokens needs {sizes}.",
        "Ratios are medians with quartiles, measured in turns." if model else "Random weights: agreement means little.",
    ]
    what = {"model": model or f"random, {shape}", "slots": slots, "repeats": repeats, "kind": on.type}
    report = Report("Masked models: kept keys", {**conditions(on), **what}, header, rows, notes, figures)
    report.show()
    if write is not None:
        report.write(write, out)


if __name__ == "__main__":
    typer.run(reports_errors(main))

"""The kernels compiled when a model is loaded are those that whole requests use: both are recorded and compared.

Nothing is computed by kernels here, and everything else is: launches are recorded, and their results are zeros but for
the tokens, which are random. The numbers of heads, experts and multiprocessors are those of the 26B on an H100, since
kernels are chosen by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

pytest.importorskip("triton")

from triton.runtime.jit import JITFunction  # noqa: E402

from bench.gpu.completer import make_completer  # noqa: E402
from bench.gpu.step_shapes import BUILDS, TRUE_26B, random_model  # noqa: E402
from bench.speed.large_vocabulary import large_tokenizer  # noqa: E402
from bench.speed.passes import AFTER, BEFORE  # noqa: E402
from engine.config import ModelConfig, SelfConditioning  # noqa: E402
from engine.denoiser import Denoiser  # noqa: E402
from engine.graphs.recorded_steps import RecordedSteps  # noqa: E402
from engine.graphs.step_stats import all_stats, top_stats  # noqa: E402
from engine.kernels import tiles  # noqa: E402
from engine.warm_up import warm_up  # noqa: E402
from infill.complete.completion import Completer  # noqa: E402
from infill.complete.last_draft import LastDraft  # noqa: E402
from infill.prompts.text_tokens import TextTokens  # noqa: E402
from infill.request import Hole, InfillRequest  # noqa: E402
from tests.kernels.fake_gpu import Launch, launch_of  # noqa: E402

VOCAB, MULTIPROCESSORS, STEPS = 2048, 132, 6
SMALL = {
    "vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3, "head_dim": 16,
    "global_head_dim": 32, "moe_intermediate_size": 32,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
}  # fmt: skip
CONFIG = ModelConfig.from_json({**TRUE_26B, "text_config": {**TRUE_26B["text_config"], **SMALL}})


class Zeros(TorchFunctionMode):
    """New tensors hold zeros, because no kernel fills them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        return made.zero_() if func in (torch.empty, torch.empty_like, Tensor.new_empty) else made


@contextmanager
def recorded_launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Launch]]:
    seen: set[Launch] = set()

    def run(kernel: JITFunction[Any], *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
        launch = launch_of(kernel, arguments, named)
        seen.add(launch)
        if launch.name == "_merge" and "argmax" in kernel.arg_names:
            for name in ("argmax", "sample"):
                arguments[kernel.arg_names.index(name)].random_(200, VOCAB)

    with monkeypatch.context() as patch, Zeros():
        patch.setattr(JITFunction, "run", run)
        patch.setattr(tiles, "multiprocessors", lambda device: MULTIPROCESSORS)
        yield seen


def completer(kind: str, self_conditioning: SelfConditioning, fp8_keys: bool) -> Completer:
    model = random_model(CONFIG, BUILDS[kind], torch.device("cpu"), torch.float32)
    model.fp8_keys = fp8_keys
    found = make_completer(model, TextTokens(large_tokenizer(VOCAB, VOCAB // 3)), STEPS)
    denoiser = found.model.denoiser
    assert isinstance(denoiser, Denoiser)
    stats = all_stats if self_conditioning == "all" else top_stats
    denoiser.recorded = RecordedSteps(model, denoiser.own_draws, None, stats)
    return found


def whole_requests(completer: Completer) -> None:
    """Cold, the next key, a file without anything around the hole, a block, several candidates, two holes; a short and
    a long prompt that grow by one token."""
    never: Callable[[], bool] = lambda: False  # noqa: E731 - as a service, which may cancel
    text = f"{BEFORE}def sums(items):\n    total = "
    for typed in ("t", "to", "tot"):
        at = len(text + typed)
        completer.complete(InfillRequest(text + typed + AFTER, (Hole(at, at),), "python", lines="one"), stop=never)
    for before, options in (
        ("x = ", {"lines": "one"}),
        ("def first(items):\n    ", {"lines": "block"}),
        (text, {"lines": "block"}),
        (text, {"lines": "one", "candidates": 3}),
    ):
        completer.last_draft = LastDraft()
        completer.complete(InfillRequest(before, (Hole(len(before), len(before)),), "python", **options), stop=never)
    body = "def two(a, b):\n    one = \n    other = \n    return one + other\n"
    holes = tuple(Hole(at, at) for at in (body.index("one =") + 6, body.index("other =") + 8))
    completer.complete(InfillRequest(body, holes, "python", lines="one"), stop=never)
    for length in (20, 21, 1200, 1201):
        completer.model.denoiser.cache.acquire(range(7, 7 + length), never).release()


def names(launches: set[Launch]) -> list[str]:
    return sorted(f"{one.name} {dict(one.constants)} {one.signature} {one.sixteenths}" for one in launches)


@pytest.mark.slow
@pytest.mark.parametrize("self_conditioning", ["all", "likeliest"])
@pytest.mark.parametrize(("kind", "fp8_keys"), [*((kind, False) for kind in BUILDS), ("int4", True)])
def test_requests_use_the_kernels_that_are_compiled_at_load(
    kind: str, fp8_keys: bool, self_conditioning: SelfConditioning, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = completer(kind, self_conditioning, fp8_keys)
    denoiser = pipeline.model.denoiser
    assert isinstance(denoiser, Denoiser)
    with recorded_launches(monkeypatch) as compiled:
        warm_up(denoiser)
    with recorded_launches(monkeypatch) as used:
        whole_requests(pipeline)
    assert names(used - compiled) == [] and len(used) > 15
    unused = {one.name for one in compiled - used}
    assert unused <= {"_from_hidden"}, "16, 32 or 64 rows, by the lengths that are denoised to the end"
    assert not denoiser.cache.entries or not any(entry.users for entry in denoiser.cache.entries)

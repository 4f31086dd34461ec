"""Steps over fixed tensors give the same results as the plain denoiser, recorded or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import DenoiseRequest, DenoiseResult
from engine.config import NoiseConfig, SamplingConfig
from engine.denoiser import Denoiser
from engine.errors import NotFiniteError
from engine.graphs import recorded_steps, step_stats
from engine.graphs.fixed_step import FixedStep
from engine.graphs.recorded_steps import CudaGraphs, Record, RecordedSteps, bucket_for
from engine.logit_bias import LogitBias
from engine.models.diffusion_gemma import DiffusionGemma
from tests.engine.tiny import ours, reference

SLOW = SamplingConfig(max_steps=9, confidence_threshold=-1.0)
EASY = SamplingConfig(max_steps=20, confidence_threshold=100.0, stability_threshold=0)
WIDE = Canvas.of(Known(range(20, 32)), Slots(14), Known(range(40, 50)))
SHORT = Canvas.of(Slots(5), Known(range(30, 34)))
TWO = Canvas.of(Slots(4), Known([9, 8, 7]), Slots(6), allowed={0: [3, 4, 5], 8: [60]})
PROMPT = list(range(3, 33))


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return ours(reference(feedback=0.05))


def recorded(
    model: DiffusionGemma, record: Record | None = None, read: step_stats.ComputeStats = step_stats.exact_stats
) -> Denoiser:
    denoiser = Denoiser(model)
    denoiser.recorded = RecordedSteps(model, denoiser.own_draws, record, read)
    return denoiser


def same(found: list[DenoiseResult], wanted: list[DenoiseResult]) -> None:
    for ours_, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours_.tokens, theirs.tokens) and torch.equal(ours_.columns, theirs.columns)
        assert (ours_.steps, ours_.finish) == (theirs.steps, theirs.finish)
        torch.testing.assert_close(ours_.log_probabilities, theirs.log_probabilities, atol=5e-3, rtol=2e-3)
        torch.testing.assert_close(ours_.entropy, theirs.entropy, atol=5e-3, rtol=2e-3)


def request(canvas: Canvas = WIDE, length: int = 30, sampling: SamplingConfig = SLOW, seed: int = 1) -> DenoiseRequest:
    return DenoiseRequest(PROMPT[:length], canvas, sampling, seed)


ARGMAX = replace(SLOW, token_choice="argmax")
BANNED = torch.tensor([0, 1, 2, 50, 51])
DRAFTED = Canvas.of(Known([5, 6]), Slots(6, [11, None, 12]), Known([7]))
BATCHES: dict[str, list[DenoiseRequest]] = {
    "one": [request()],
    "one without a pin": [request(Canvas.of(Slots(16)), 1)],
    "likeliest tokens": [request(sampling=ARGMAX)],
    "unequal": [request(seed=3), request(SHORT, 4, ARGMAX, 4), request(TWO, 17, seed=5)],
    "banned": [replace(request(), banned=BANNED), request(SHORT, 7)],
    "allowed": [replace(request(TWO), banned=BANNED), request(seed=2)],
    "drafted": [request(DRAFTED, 12)],
    "ready at different times": [
        request(sampling=EASY),
        request(SHORT, 5, SLOW),
        request(TWO, 20, replace(SLOW, max_steps=4)),
    ],
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
def test_answers_are_those_of_the_plain_denoiser(model: DiffusionGemma, batch: list[DenoiseRequest]) -> None:
    wanted = Denoiser(model).run(batch)
    denoiser = recorded(model)
    same(denoiser.run(batch), wanted)
    same(denoiser.run(batch), wanted)  # in a bucket that others have used
    if any(one.sampling is EASY for one in batch):
        assert len({one.steps for one in wanted}) > 1 and wanted[0].finish == "stable"


def test_noise_of_every_kind_is_drawn_in_the_same_order(model: DiffusionGemma) -> None:
    hybrid = NoiseConfig("hybrid", 7, 0.5)
    plain, fixed = Denoiser(model), recorded(model)
    plain.own_draws.noise_config = fixed.own_draws.noise_config = hybrid
    same(fixed.run([request()]), plain.run([request()]))


def test_a_bucket_serves_prompts_of_any_length_one_after_the_other(model: DiffusionGemma) -> None:
    denoiser = recorded(model)
    for length in (30, 2, 19, 30):
        same(denoiser.run([request(length=length)]), Denoiser(model).run([request(length=length)]))
    assert denoiser.recorded is not None and len(denoiser.recorded._slots) == 1


def test_runs_may_take_turns_and_be_seen_between_steps(model: DiffusionGemma) -> None:
    plain, fixed = Denoiser(model), recorded(model)
    answers = []
    for denoiser in (plain, fixed):
        first, second = denoiser.start(request(seed=1)), denoiser.start(request(SHORT, 9, seed=2))
        seen = []
        for turn in ([first], [second], [first, second], [first], [second, first]):
            denoiser.step(turn)
            for run in (first, second):
                if run.logits is not None:
                    seen.append((run.argmax.clone(), run.tokens.clone(), run.accepted.clone(), run.logits.clone()))
        answers.append((seen, [denoiser.result(run) for run in (first, second)]))
        denoiser.close(first)
        denoiser.close(second)
    for mine, theirs in zip(answers[1][0], answers[0][0], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine[:3], theirs[:3], strict=True))
        torch.testing.assert_close(mine[3], theirs[3], atol=1e-4, rtol=1e-4)
    for ours_, theirs in zip(answers[1][1], answers[0][1], strict=True):
        assert torch.equal(ours_.tokens, theirs.tokens)


def test_the_first_step_runs_and_the_others_are_played(model: DiffusionGemma) -> None:
    made: list[FixedStep] = []
    played: list[int] = []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        assert isinstance(work, FixedStep)
        made.append(work)

        def replay() -> None:
            played.append(1)
            work()

        return replay

    denoiser = recorded(model, record)
    same(denoiser.run([request()]), Denoiser(model).run([request()]))
    assert len(made) == 1 and len(played) == SLOW.max_steps - 1
    denoiser.run([request(length=11)])
    assert len(made) == 1 and len(played) == 2 * SLOW.max_steps - 1
    denoiser.run([request(), request(seed=2)])
    assert [step.bucket.batch for step in made] == [1, 2]


def test_if_recording_fails_steps_run_unrecorded_and_a_warning_is_logged(
    model: DiffusionGemma, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        tried.append(work)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    denoiser = recorded(model, refuse)
    same(denoiser.run([request()]), Denoiser(model).run([request()]))
    denoiser.run([request(SHORT)])
    assert len(tried) == 1 and "without CUDA graphs" in caplog.text and "not permitted" in caplog.text


def test_memory_that_runs_out_while_recording_is_made_free(
    model: DiffusionGemma, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[FixedStep] = []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        assert isinstance(work, FixedStep)
        tried.append(work)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return work

    denoiser = recorded(model, record)
    same(denoiser.run([request()]), Denoiser(model).run([request()]))
    assert len(tried) == 2 and tried[0] is not tried[1]
    assert "dropping unused prompts" in caplog.text and "without CUDA graphs" not in caplog.text
    assert denoiser.recorded is not None and denoiser.recorded.are_recorded


@pytest.mark.parametrize("trouble", [torch.OutOfMemoryError, ValueError])
def test_a_recording_that_cannot_be_ended_leaves_the_stream_as_it_was(
    trouble: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    current = ["own"]

    @contextmanager
    def graph(*arguments: object, **named: object) -> Iterator[None]:
        current.append("recording")
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    def work() -> None:
        raise trouble("in the middle")

    for name, value in (
        ("graph", graph), ("CUDAGraph", object), ("graph_pool_handle", object),
        ("current_stream", lambda: current[-1]), ("set_stream", current.append),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    with pytest.raises(torch.OutOfMemoryError if trouble is torch.OutOfMemoryError else RuntimeError):
        CudaGraphs()(work)
    assert current == ["own", "recording", "own"]


def test_deadlines_and_callbacks_act_between_steps(model: DiffusionGemma) -> None:
    denoiser = recorded(model)
    late = replace(request(), deadline=time.monotonic() - 1)
    result = denoiser.run([late])[0]
    assert (result.steps, result.finish) == (1, "deadline")
    result = denoiser.run([request()], lambda runs: runs[0].steps < 3)[0]
    assert (result.steps, result.finish) == (3, "cancelled")
    same(denoiser.run([request()]), Denoiser(model).run([request()]))


def test_what_does_not_fit_a_bucket_is_stepped_plainly(model: DiffusionGemma) -> None:
    denoiser = recorded(model)
    assert denoiser.recorded is not None
    for canvas, steps in ((Canvas.of(Slots(300)), 2), (SHORT, 70)):
        long = request(canvas, sampling=replace(SLOW, max_steps=steps))
        same(denoiser.run([long]), Denoiser(model).run([long]))
    assert not denoiser.recorded._slots


def test_buckets_grow_in_steps(model: DiffusionGemma) -> None:
    denoiser = Denoiser(model)
    runs = [denoiser.start(one) for one in (request(WIDE), request(SHORT, 4), request(TWO))]
    bucket = bucket_for(runs[:1])
    assert (bucket.batch, bucket.width, bucket.holes, bucket.prompt, bucket.bias) == (1, 64, 16, 512, 0)
    assert bucket_for(runs).batch == 3 and bucket_for(runs).bias == 4  # two restricted columns
    assert [bucket_for(runs[:1] * count).batch for count in (4, 5, 6, 7, 9, 16)] == [4, 5, 6, 8, 12, 16]
    for length, prompt in ((512, 512), (513, 1024), (1025, 2048), (2048, 2048), (2049, 4096), (9000, 10240)):
        runs[1].lease.kv.length = length
        assert bucket_for(runs[1:2]).prompt == prompt


def test_the_memory_of_keys_grows_and_only_so_many_buckets_are_kept(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_steps, "MOST_BUCKETS", 2)
    monkeypatch.setattr(recorded_steps, "MIN_PROMPT", 8)
    denoiser = recorded(model)
    for one in (request(SHORT, 5), request(WIDE, 30), request(SHORT, 5), request(TWO, 7)):
        same(denoiser.run([one]), Denoiser(model).run([one]))
    assert denoiser.recorded is not None and len(denoiser.recorded._slots) == 2


def test_few_tokens_believe_what_all_do_but_for_their_mass(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, uniform = torch.randn(6, 48), torch.rand(6)
    temperature = torch.full((6,), 0.5)
    bias = LogitBias(torch.zeros(2, 120), torch.tensor([0, 0, 0, 1, 1, 1], dtype=torch.int32))
    bias.values[1, :60] = -1e4
    monkeypatch.setattr(step_stats, "TOP", 120)
    everything = step_stats.top_stats(model, hidden, temperature, uniform, bias)
    wanted = step_stats.exact_stats(model, hidden, temperature, uniform, bias)
    assert torch.equal(everything.argmax, wanted.argmax) and torch.equal(everything.sample, wanted.sample)
    assert (wanted.argmax[3:] >= 60).all() and (wanted.sample[3:] >= 60).all() and (wanted.argmax[:3] < 60).any()
    for mine, theirs in ((everything.belief, wanted.belief), (everything.log_probability, wanted.log_probability)):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    monkeypatch.setattr(step_stats, "TOP", 4)
    few = step_stats.top_stats(model, hidden, temperature, uniform, bias)
    probabilities = torch.softmax(bias.added(model.logits(hidden)) / 0.5, -1)
    missing = 1 - probabilities.topk(4).values.sum(-1)
    largest = model.embed(torch.arange(120)).norm(dim=-1).max()
    assert ((few.belief - wanted.belief).norm(dim=-1) <= missing * largest + 1e-3).all()


@pytest.mark.parametrize("make", [Denoiser, recorded], ids=["plain", "recorded"])
def test_numbers_that_are_not_finite_are_an_error_and_leave_nothing_behind(
    model: DiffusionGemma, make: Callable[[DiffusionGemma], Denoiser], monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = make(model)
    with monkeypatch.context() as patch:
        denoise = model.denoise

        def broken(*arguments: object) -> torch.Tensor:
            hidden = denoise(*arguments)  # type: ignore[arg-type]
            hidden[0, 15, 3] = torch.nan
            return hidden

        patch.setattr(model, "denoise", broken)
        with pytest.raises(NotFiniteError, match="NaN or infinity"):
            denoiser.run([request()])
    same(denoiser.run([request()]), Denoiser(model).run([request()]))


@pytest.mark.parametrize("make", [Denoiser, recorded], ids=["plain", "recorded"])
def test_memory_that_others_took_costs_what_is_kept_and_not_the_answer(
    model: DiffusionGemma,
    make: Callable[[DiffusionGemma], Denoiser],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    denoiser = make(model)
    denoiser.run([request(SHORT, 9)])
    assert len(denoiser.cache.entries) == 1
    wanted, denoise, calls = Denoiser(model).run([request()]), model.denoise, []

    def full(*arguments: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return denoise(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "denoise", full)
    same(denoiser.run([request()]), wanted)
    assert (
        "dropping unused prompts" in caplog.text
        and len(calls) == SLOW.max_steps + 1
        and len(denoiser.cache.entries) == 1
    )

    def always(*arguments: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "denoise", always)
    with pytest.raises(torch.OutOfMemoryError):
        denoiser.run([request()])


@pytest.mark.parametrize("make", [Denoiser, recorded], ids=["plain", "recorded"])
def test_keys_in_fp8_change_little(make: Callable[[DiffusionGemma], Denoiser]) -> None:
    model = ours(reference(feedback=0.0))
    one_step = replace(request(), sampling=replace(ARGMAX, max_steps=1))
    wanted = Denoiser(model).run([one_step])[0]
    model.fp8_keys = True
    denoiser = make(model)
    found = denoiser.run([one_step])[0]
    entry = denoiser.cache.entries[0].kv
    assert entry.dtype == torch.float8_e4m3fn and found.encoded_tokens == 30
    assert (found.log_probabilities - wanted.log_probabilities).abs().mean() < 0.3
    assert (found.tokens == wanted.tokens).float().mean() > 0.7
    same(denoiser.run([one_step, one_step]), [found, found])

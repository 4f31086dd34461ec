"""The denoising loop from its caller's view: seeds, batches, callbacks, deadlines, widths, drafts, restrictions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.diffusion_gemma.generation_diffusion_gemma import StableAndConfidentStoppingCriteria

from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import CanvasRun, DenoiseRequest, DenoiseResult
from engine.config import NoiseConfig, SamplingConfig
from engine.denoiser import Denoiser
from engine.errors import Cancelled
from engine.models.diffusion_gemma import DiffusionGemma
from tests.engine.scripted import Recorder, script, two_way
from tests.engine.tiny import ours, reference

VOCAB = 120
PROMPT = [7 * n % 113 for n in range(21)]
CANVAS = Canvas.of(Known([5, 6]), Slots(8), Known([7, 8, 9]))
RESTLESS = SamplingConfig(8, 1.0, 0.4, 0.8, 1, 1e-9)


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    model = ours(reference(feedback=0.02))
    model.embed_tokens.weight[0] = model.embed_tokens.weight[1]  # not zero, which is the token of padding
    return model


@pytest.fixture
def request_(model: DiffusionGemma) -> DenoiseRequest:
    return DenoiseRequest(PROMPT, CANVAS, RESTLESS, seed=3)


def trajectory(denoiser: Denoiser, request: DenoiseRequest) -> tuple[DenoiseResult, list[list[int]]]:
    """The result, and the tokens of the holes after every step."""
    canvases: list[list[int]] = []
    result = denoiser.run([request], lambda runs: canvases.append(runs[0].tokens.tolist()))[0]
    return result, canvases


def assert_identical(first: DenoiseResult, second: DenoiseResult) -> None:
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.log_probabilities, second.log_probabilities)
    assert torch.equal(first.entropy, second.entropy)
    assert (first.steps, first.finish) == (second.steps, second.finish)


def test_a_seed_makes_a_run_reproducible_bit_for_bit(model: DiffusionGemma, request_: DenoiseRequest) -> None:
    denoiser = Denoiser(model)
    first, first_way = trajectory(denoiser, request_)
    torch.manual_seed(99)
    again, again_way = trajectory(denoiser, request_)
    fresh, fresh_way = trajectory(Denoiser(model), request_)
    assert_identical(first, again)
    assert_identical(first, fresh)
    assert first_way == again_way == fresh_way


def test_pinned_positions_count_as_certain_for_the_stopping_rule(model: DiffusionGemma) -> None:
    canvas = Canvas.of(Known([1, 2, 3] * 4), Slots(4), Known([5] * 8))
    request = DenoiseRequest(PROMPT, canvas, replace(RESTLESS, stability_threshold=0), seed=3)
    (first,) = Denoiser(model).run([replace(request, sampling=replace(request.sampling, max_steps=1))])
    mean = float(first.entropy.sum()) / canvas.width

    def steps(threshold: float) -> int:
        sampling = replace(request.sampling, confidence_threshold=threshold, t_min=0.8, t_max=0.8)
        return Denoiser(model).run([replace(request, sampling=sampling)])[0].steps

    assert steps(1.01 * mean) == 1 < steps(0.99 * mean)


def test_another_seed_goes_another_way(model: DiffusionGemma, request_: DenoiseRequest) -> None:
    _, first = trajectory(Denoiser(model), request_)
    _, second = trajectory(Denoiser(model), replace(request_, seed=4))
    assert first != second


def test_a_run_leaves_the_global_generator_alone(model: DiffusionGemma, request_: DenoiseRequest) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Denoiser(model).run([request_])
    assert torch.equal(torch.rand(3), expected)


def assorted(model: DiffusionGemma) -> list[DenoiseRequest]:
    """Unequal prompts, widths, holes, steps, choices and restrictions."""
    return [
        DenoiseRequest(PROMPT, CANVAS, RESTLESS, seed=3),
        DenoiseRequest(PROMPT[:5], Canvas.of(Slots(13)), replace(RESTLESS, max_steps=5), seed=4),
        DenoiseRequest(PROMPT * 2, Canvas.of(Known([1]), Slots(3), Known([2]), Slots(2)), RESTLESS, seed=5),
        DenoiseRequest(PROMPT, Canvas.of(Slots(2, [7])), replace(RESTLESS, token_choice="argmax"), seed=6),
        DenoiseRequest(
            PROMPT[:9],
            Canvas.of(Slots(4), Known([1] * 9), allowed={1: [60, 61]}),
            replace(RESTLESS, stability_threshold=0, confidence_threshold=9.0),
            seed=7,
            banned=torch.arange(50),
        ),
    ]


def test_a_row_comes_out_the_same_alone_and_in_a_batch(model: DiffusionGemma) -> None:
    requests = assorted(model)
    together: list[list[list[int]]] = [[] for _ in requests]

    def watch(runs: Sequence[CanvasRun]) -> None:
        for way, run in zip(together, runs, strict=True):
            if len(way) < run.steps:
                way.append(run.tokens.tolist())

    results = Denoiser(model).run(requests, watch)
    assert len({result.steps for result in results}) > 2, "rows should leave the batch at different times"
    for request, result, way in zip(requests, results, together, strict=True):
        alone, alone_way = trajectory(Denoiser(model), request)
        assert way == alone_way
        assert torch.equal(alone.tokens, result.tokens)
        assert (alone.steps, alone.finish) == (result.steps, result.finish)
        torch.testing.assert_close(alone.log_probabilities, result.log_probabilities, atol=1e-3, rtol=0)


def test_runs_may_join_and_leave_between_steps(model: DiffusionGemma) -> None:
    early, late, _, short, _ = assorted(model)
    denoiser = Denoiser(model)
    first = denoiser.start(early)
    denoiser.step([first])
    second = denoiser.start(late)
    denoiser.step([first, second])
    denoiser.step([second])
    third = denoiser.start(short)
    while active := [run for run in (third, first, second) if run.finished is None]:
        denoiser.step(active)
    for run, request in ((first, early), (second, late), (third, short)):
        alone = Denoiser(model).run([request])[0]
        assert torch.equal(denoiser.result(run).tokens, alone.tokens)
        assert run.steps == alone.steps
        denoiser.close(run)


def test_the_callback_sees_every_step(model: DiffusionGemma, request_: DenoiseRequest) -> None:
    seen: list[tuple[int, str | None]] = []
    result = Denoiser(model).run([request_], lambda runs: seen.append((runs[0].steps, runs[0].finished)))[0]
    assert seen == [(step, None) for step in range(1, 8)] + [(8, "steps")]
    assert (result.steps, result.finish) == (8, "steps")


def test_the_callback_can_cancel_and_the_best_canvas_so_far_is_kept(
    model: DiffusionGemma, request_: DenoiseRequest
) -> None:
    likeliest: list[list[int]] = []

    def watch(runs: Sequence[CanvasRun]) -> bool:
        likeliest.append(runs[0].argmax.tolist())
        return runs[0].steps < 3

    short = replace(request_, sampling=replace(RESTLESS, max_steps=3), seed=8)
    cancelled, at_its_end = Denoiser(model).run([request_, short], watch)
    assert (cancelled.steps, cancelled.finish) == (3, "cancelled")
    assert len(likeliest) == 3
    assert cancelled.tokens[2:10].tolist() == likeliest[-1]
    assert at_its_end.finish == "steps", "what was done by then is not called cancelled"


def test_a_cancelled_run_ends_and_leaves_nothing_behind(model: DiffusionGemma, request_: DenoiseRequest) -> None:
    denoiser, seen = Denoiser(model), list[int]()
    expected, _ = trajectory(Denoiser(model), request_)
    watched = replace(request_, stop=lambda: len(seen) == 3)
    with pytest.raises(Cancelled):
        denoiser.run([request_, watched], lambda runs: seen.append(runs[0].steps))
    assert seen == [1, 2, 3]
    assert [entry.users for entry in denoiser.cache.entries] == [0] and not denoiser.own_draws.generators
    with pytest.raises(Cancelled):
        Denoiser(model).run([replace(request_, stop=lambda: True)])
    assert_identical(trajectory(denoiser, request_)[0], expected)


def test_a_deadline_that_has_passed_leaves_one_step(model: DiffusionGemma, request_: DenoiseRequest) -> None:
    late = replace(request_, deadline=time.monotonic() - 1)
    result = Denoiser(model).run([late])[0]
    one_step = Denoiser(model).run([request_], lambda runs: False)[0]
    assert (result.steps, result.finish) == (1, "deadline")
    assert torch.equal(result.tokens, one_step.tokens)


def test_a_deadline_ends_its_own_row_after_the_step_in_which_it_passed(
    model: DiffusionGemma, request_: DenoiseRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("engine.canvas_loop.time.monotonic", lambda: now[0])

    def watch(runs: Sequence[CanvasRun]) -> None:
        now[0] += 10

    soon, never = replace(request_, deadline=25.0), replace(request_, deadline=1000.0)
    first, second = Denoiser(model).run([soon, never], watch)
    assert (first.steps, first.finish) == (4, "deadline")
    assert (second.steps, second.finish) == (8, "steps")


PLACES = {
    "throughout": lambda width: Canvas.of(Slots(width)),
    "at the start": lambda width: Canvas.of(Slots(1), Known([5] * (width - 1))),
    "at the end": lambda width: Canvas.of(Known([5] * (width - 2)), Slots(2)),
    "several": lambda width: Canvas.of(
        Known([5]), Slots(1), Known([6] * 3), Slots(width - 9), Known([7, 8]), Slots(1), Known([9])
    ),
}


@pytest.mark.parametrize(
    "place, width",
    [
        (place, width)
        for place, narrowest in zip(PLACES, (1, 1, 2, 10), strict=True)
        for width in (1, 2, 11, 12, 13, 64, 300)
        if width >= narrowest
    ],
)
def test_canvases_of_any_width_with_holes_anywhere(model: DiffusionGemma, place: str, width: int) -> None:
    canvas = PLACES[place](width)
    sampling = replace(RESTLESS, max_steps=2)
    result = Denoiser(model).run([DenoiseRequest(PROMPT, canvas, sampling)])[0]
    assert len(result.tokens) == width
    assert torch.equal(result.columns, canvas.hole_columns)
    assert torch.equal(result.tokens[canvas.pinned], canvas.tokens[canvas.pinned])
    assert 0 <= int(result.tokens.min()) and int(result.tokens.max()) < VOCAB
    holes = len(result.columns)
    assert result.log_probabilities.shape == result.entropy.shape == (holes,)
    assert result.log_probabilities.le(0).all() and result.entropy.ge(0).all()


def test_known_tokens_around_a_hole_shape_what_is_written(model: DiffusionGemma) -> None:
    written = {
        tuple(Denoiser(model).run([DenoiseRequest(PROMPT, canvas, RESTLESS)])[0].tokens[canvas.hole_columns].tolist())
        for canvas in (
            Canvas.of(Known([5]), Slots(6), Known([7])),
            Canvas.of(Known([80]), Slots(6), Known([7])),
            Canvas.of(Known([5]), Slots(6), Known([90])),
        )
    }
    assert len(written) == 3


def test_log_probabilities_are_those_of_the_tokens_at_temperature_one(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = torch.randn(13, VOCAB, generator=torch.Generator().manual_seed(0))
    script(model, monkeypatch, lambda step: table)
    sampling = replace(RESTLESS, max_steps=1, t_min=0.5, t_max=0.5)
    result = Denoiser(model).run([DenoiseRequest(PROMPT, CANVAS, sampling)])[0]
    holes = table[2:10]
    assert result.tokens[2:10].tolist() == holes.argmax(-1).tolist()
    torch.testing.assert_close(result.log_probabilities, holes.log_softmax(-1).amax(-1))
    torch.testing.assert_close(result.entropy, torch.distributions.Categorical(logits=holes / 0.5).entropy())


def test_a_draft_is_in_the_first_canvas_with_its_own_embedding(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        model, "config", replace(model.config, noise=NoiseConfig("mask", mask_token_id=4)), raising=True
    )
    recorder = Recorder(model, monkeypatch)
    canvas = Canvas.of(Known([5]), Slots(4, draft=[30, None, 31]), Known([6]))
    Denoiser(model).run([DenoiseRequest(PROMPT, canvas, replace(RESTLESS, max_steps=2))])
    assert recorder.tokens[0][0].tolist() == [5, 30, 4, 31, 4, 6]
    belief = recorder.beliefs[0][0]
    torch.testing.assert_close(belief[[1, 3]], model.embed_tokens.weight[[30, 31]] * 48**0.5, atol=0, rtol=1e-6)
    assert not belief[[2, 4]].any()
    assert recorder.beliefs[1][0, 1:5].ne(belief[1:5]).any(dim=-1).all(), "a draft is not pinned"


def test_a_draft_may_be_overruled(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    script(model, monkeypatch, lambda step: two_way(VOCAB, 20, 21, 0.01).repeat(3, 1))
    canvas = Canvas.of(Slots(3, draft=[30, 31, 32]))
    result = Denoiser(model).run([DenoiseRequest(PROMPT, canvas, RESTLESS)])[0]
    assert result.tokens.tolist() == [20] * 3


def test_a_draft_that_the_model_repeats_is_not_stable_at_once(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(model, monkeypatch, lambda step: two_way(VOCAB, 20, 21, 0.001).repeat(3, 1))
    request = DenoiseRequest(PROMPT, Canvas.of(Slots(3, draft=[20] * 3)), SamplingConfig(8, 1.0, 1.0, 1.0, 1, 0.1))
    assert Denoiser(model).run([request])[0].steps == 2


@pytest.mark.parametrize("choice", ["sample", "argmax"])
def test_banned_tokens_never_come_and_restricted_columns_keep_to_theirs(model: DiffusionGemma, choice: str) -> None:
    allowed = {3: [1, 2], 9: [110]}
    banned = torch.arange(100)
    canvas = Canvas.of(Known([5, 6]), Slots(8), Known([7]), allowed=allowed)
    sampling = SamplingConfig(6, 5.0, 2.0, 4.0, 1, 1e-9, choice)  # type: ignore[arg-type]
    seen: list[list[int]] = []

    def watch(runs: Sequence[CanvasRun]) -> None:
        (run,) = runs
        for tokens in (run.argmax, torch.where(run.accepted, run.tokens, run.argmax)):
            seen.append(tokens.tolist())

    for seed in range(5):
        result = Denoiser(model).run([DenoiseRequest(PROMPT, canvas, sampling, seed, banned)], watch)[0]
        seen.append(result.tokens[2:10].tolist())
    assert len(seen) == 65
    assert {tokens[1] for tokens in seen} <= {1, 2}, "what a column allows goes before what is banned"
    assert {tokens[7] for tokens in seen} == {110}
    others = {token for tokens in seen for token in (tokens[0], *tokens[2:7])}
    assert min(others) >= 100 and len(others) > 3


def stop_of_transformers(tables: list[Tensor], stability: int, confidence: float) -> int:
    """The number of steps after which transformers' criterion stops on these logits; all of them if never."""
    criterion: Any = StableAndConfidentStoppingCriteria(stability, confidence)
    for step, table in enumerate(tables, 1):
        if bool(criterion(table.argmax(-1)[None], table[None])):
            return step
    return len(tables)


@pytest.mark.parametrize("stability", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "story, stops",
    [
        ("aaaaaaaa", [1, 2, 3, 4]),
        ("ababbbba", [1, 5, 6, 7]),
        ("AAaaAaaa", [3, 3, 3, 4]),
        ("AbAbbabb", [2, 5, 8, 8]),
        ("ABABABAB", [8, 8, 8, 8]),
        ("aabbaaba", [1, 2, 8, 8]),
    ],
)
def test_the_stop_rule_equals_transformers(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch, story: str, stops: list[int], stability: int
) -> None:
    """One letter per step: the likeliest token, in lower case if the model is confident."""
    tables = [
        two_way(VOCAB, 20 + (letter in "bB"), 50, 0.5 if letter.isupper() else 0.01).repeat(4, 1) for letter in story
    ]
    script(model, monkeypatch, lambda step: tables[step])
    sampling = SamplingConfig(len(story), 1.0, 1.0, 1.0, stability, 0.1)
    result = Denoiser(model).run([DenoiseRequest(PROMPT, Canvas.of(Slots(4)), sampling)])[0]
    assert result.steps == stop_of_transformers(tables, stability, 0.1) == stops[stability]

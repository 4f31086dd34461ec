"""Canvases denoised block after block: joined as by hand, ended by deadlines and callbacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from engine.blocks import denoise_in_blocks
from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import CanvasRun, DenoiseRequest
from engine.config import SamplingConfig
from engine.denoiser import Denoiser
from engine.errors import InputError
from engine.models.diffusion_gemma import DiffusionGemma
from tests.engine.scripted import Recorder
from tests.engine.tiny import ours, reference

VOCAB = 120
PROMPT = [7 * n % 113 for n in range(21)]
SAMPLING = SamplingConfig(4, 1.0, 0.4, 0.8, 1, 1e-9)
LONG = Canvas.of(Known([5, 6]), Slots(9, [30]), Known([7]), Slots(3), Known([8]))  # 16 columns


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return ours(reference(feedback=0.02))


def ask(canvas: Canvas = LONG, seed: int = 3, deadline: float | None = None) -> DenoiseRequest:
    return DenoiseRequest(PROMPT, canvas, SAMPLING, seed, torch.tensor([0, 1, 2]), deadline)


def test_a_canvas_that_fits_comes_out_as_from_a_plain_run(model: DiffusionGemma) -> None:
    plain = Denoiser(model).run([ask()])[0]
    for width in (16, 300):
        blocks = denoise_in_blocks(Denoiser(model), ask(), width)
        assert torch.equal(blocks.tokens, plain.tokens) and torch.equal(blocks.columns, plain.columns)
        assert torch.equal(blocks.log_probabilities, plain.log_probabilities)
        assert torch.equal(blocks.entropy, plain.entropy)
        for name in ("steps", "finish", "prompt_tokens", "encoded_tokens"):
            assert getattr(blocks, name) == getattr(plain, name)
        assert blocks.filled == 16


def test_two_blocks_are_what_they_are_by_hand(model: DiffusionGemma) -> None:
    denoiser = Denoiser(model)
    blocks = denoise_in_blocks(denoiser, ask(), 8)
    first = Denoiser(model).run([ask(Canvas.of(Known([5, 6]), Slots(6, [30])))])[0]
    rest = Canvas.of(Slots(3), Known([7]), Slots(3), Known([8]))
    second = Denoiser(model).run([replace(ask(rest, seed=4), prompt=[*PROMPT, *first.tokens.tolist()])])[0]
    assert blocks.tokens.tolist() == [*first.tokens.tolist(), *second.tokens.tolist()]
    assert blocks.columns.tolist() == LONG.hole_columns.tolist()
    pairs = zip(("log_probabilities", "entropy"), (blocks.log_probabilities, blocks.entropy), strict=True)
    for name, joined in pairs:
        expected = torch.cat((getattr(first, name), getattr(second, name)))
        torch.testing.assert_close(joined, expected, atol=1e-3, rtol=0)
    assert blocks.steps == first.steps + second.steps == 8
    assert (blocks.finish, blocks.filled) == ("steps", 16)
    assert (blocks.prompt_tokens, blocks.encoded_tokens) == (21, 21 + 8)
    assert denoiser.cache.encoded_tokens == 29, "what the first block wrote is read, the prompt is not read again"


def test_the_models_own_canvas_is_the_default_width(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(model, monkeypatch)
    denoise_in_blocks(Denoiser(model), ask())
    assert [tokens.shape[1] for tokens in recorder.tokens] == [12] * 4 + [4] * 4


def test_restrictions_move_with_their_columns(model: DiffusionGemma) -> None:
    canvas = Canvas.of(Slots(20), allowed={1: [50], 9: [51], 19: [52]})
    tokens = denoise_in_blocks(Denoiser(model), ask(canvas), 7).tokens.tolist()
    assert [tokens[column] for column in (1, 9, 19)] == [50, 51, 52]
    assert not {0, 1, 2} & set(tokens)


@pytest.mark.parametrize(
    "parts, widths, filled",
    [
        ([Known([5] * 8), Slots(4)], [4], 12),
        ([Slots(4), Known([5] * 9)], [4], 13),
        ([Slots(2), Known([5] * 9), Slots(2)], [4, 4, 1], 13),
    ],
)
def test_blocks_without_a_hole_are_only_read(
    model: DiffusionGemma,
    monkeypatch: pytest.MonkeyPatch,
    parts: list[Known | Slots],
    widths: list[int],
    filled: int,
) -> None:
    recorder = Recorder(model, monkeypatch)
    canvas = Canvas.of(*parts)
    denoiser = Denoiser(model)
    result = denoise_in_blocks(denoiser, ask(canvas), 4)
    assert [tokens.shape[1] for tokens in recorder.tokens[::4]] == widths
    assert torch.equal(result.tokens[canvas.pinned], canvas.tokens[canvas.pinned])
    assert (result.filled, result.steps) == (filled, 4 * len(widths))
    assert result.encoded_tokens == denoiser.cache.encoded_tokens


def assert_unfilled(result_tokens: torch.Tensor, canvas: Canvas, start: int) -> None:
    assert torch.equal(result_tokens[start:], canvas.tokens[start:])
    assert result_tokens[:start].ge(0).all()


@pytest.mark.parametrize("cancel_at", [2, 4])
def test_a_callback_ends_the_whole(model: DiffusionGemma, cancel_at: int) -> None:
    seen: list[int] = []

    def watch(runs: Sequence[CanvasRun]) -> bool:
        seen.append(len(runs[0].request.prompt) - len(PROMPT))
        return len(seen) < cancel_at

    canvas = Canvas.of(Slots(5), Known([5]), Slots(6, [None, 40]))
    result = denoise_in_blocks(Denoiser(model), ask(canvas), 6, watch)
    assert (result.finish, result.steps, result.filled) == ("cancelled", cancel_at, 6)
    assert seen == [0] * cancel_at
    assert_unfilled(result.tokens, canvas, 6)
    assert result.tokens[6:].tolist() == [-1, 40, -1, -1, -1, -1]
    assert result.entropy[5:].tolist() == pytest.approx([math.log(VOCAB)] * 6)
    assert result.log_probabilities[5:].tolist() == pytest.approx([-math.log(VOCAB)] * 6)


def test_a_callback_in_the_very_last_step_changes_nothing(model: DiffusionGemma) -> None:
    steps: list[int] = []

    def watch(runs: Sequence[CanvasRun]) -> bool:
        steps.append(len(runs[0].request.prompt) - len(PROMPT))
        return len(steps) < 8

    result = denoise_in_blocks(Denoiser(model), ask(), 8, watch)
    assert steps == [0] * 4 + [8] * 4
    assert (result.finish, result.filled) == ("steps", 16)


@pytest.mark.parametrize(
    "deadline, steps, filled",
    [(-1.0, 1, 6), (25.0, 3, 6), (35.0, 4, 6), (45.0, 5, 12), (75.0, 8, 12), (500.0, 12, 18)],
)
def test_a_deadline_holds_for_the_whole(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch, deadline: float, steps: int, filled: int
) -> None:
    now = [0.0]
    decide = Denoiser.step

    def slow(denoiser: Denoiser, runs: Sequence[CanvasRun]) -> None:
        now[0] += 10
        decide(denoiser, runs)

    monkeypatch.setattr(Denoiser, "step", slow)
    monkeypatch.setattr("engine.canvas_loop.time.monotonic", lambda: now[0])
    canvas = Canvas.of(Slots(18))
    result = denoise_in_blocks(Denoiser(model), ask(canvas, deadline=deadline), 6)
    assert (result.steps, result.filled) == (steps, filled)
    assert result.finish == ("steps" if filled == 18 else "deadline")
    assert_unfilled(result.tokens, canvas, filled)


def test_times_are_summed_over_the_blocks(model: DiffusionGemma) -> None:
    denoiser = Denoiser(model)
    spent: list[float] = []
    denoise_in_blocks(denoiser, ask(), 4, lambda runs: spent.append(denoiser.timings.denoise))
    assert len(spent) == 16
    assert denoiser.timings.denoise == pytest.approx(sum(spent[3::4]))
    assert denoiser.timings.encode > 0


def test_a_block_must_have_a_column(model: DiffusionGemma) -> None:
    with pytest.raises(InputError, match="at least one column, not 0"):
        denoise_in_blocks(Denoiser(model), ask(), 0)


def test_more_than_the_model_takes_is_refused_before_any_work(model: DiffusionGemma) -> None:
    denoiser = Denoiser(model)
    with pytest.raises(InputError, match="521 tokens, but the model takes 512"):
        denoise_in_blocks(denoiser, ask(Canvas.of(Slots(500))))
    assert denoiser.cache.encoded_tokens == 0

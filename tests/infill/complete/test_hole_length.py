"""The length of a hole: doubled while it is full, or probed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from engine import scorer
from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import CanvasRun, DenoiseRequest, DenoiseResult, Finish, StepCallback
from engine.config import SamplingConfig
from engine.denoiser import Denoiser
from engine.scheduling.request import Order
from engine.scheduling.scheduler import Scheduler
from infill.complete import hole_length
from infill.complete.hole_length import CanvasRunner, FillTask, NullSlots, Probing, length_scores
from infill.prompts.prompt import HoleColumns, Layout
from tests.infill.fakes import NULL, ScriptedDenoiser, pocket_tokens, tiny_model
from tests.waiting import PATIENCE_S

ONE_STEP = SamplingConfig(max_steps=1)
LONG = " ".join(f"word{number}" for number in range(40))


def lay_out(slots: Sequence[int]) -> Layout:
    """Known tokens of width 4 before each hole, 3 at the end."""
    parts: list[Known | Slots] = []
    holes, at = [], 0
    for size in slots:
        parts += [Known([40, 41, 42, 43]), Slots(size)]
        holes.append(HoleColumns(at + 4, at + 4 + size, ""))
        at += 4 + size
    return Layout([2, 16, 6, 7], Canvas.of(*parts, Known([44, 45, 46])), tuple(holes), torch.tensor([]))


def task(*slots: int, most: int = 64, sampling: SamplingConfig = ONE_STEP, deadline: float | None = None) -> FillTask:
    return FillTask(
        lay_out,
        lambda layout: DenoiseRequest(layout.prompt, layout.canvas, sampling, deadline=deadline),
        slots,
        (most,) * len(slots),
    )


def filling(filled: hole_length.FilledCanvas, index: int = 0) -> str:
    hole = filled.layout.holes[index]
    return pocket_tokens().decode(filled.result.tokens[hole.start : hole.stop].tolist())


def test_a_hole_with_a_null_slot_at_its_end_is_long_enough() -> None:
    denoiser = ScriptedDenoiser(lambda number: ["x = 1"])
    (filled,) = NullSlots(CanvasRunner(denoiser, 160), NULL).fill([task(16)])
    assert filling(filled) == "x = 1" and len(denoiser.requests) == 1


def test_a_full_hole_is_doubled_until_it_is_long_enough() -> None:
    denoiser = ScriptedDenoiser(lambda number: [LONG])
    (filled,) = NullSlots(CanvasRunner(denoiser, 400), NULL).fill([task(16, most=256)])
    needed = len(pocket_tokens().encode(LONG))
    assert filling(filled) == LONG
    widths = [request.canvas.width - 7 for request in denoiser.requests]
    assert widths == [16 * 2**n for n in range(len(widths))] and widths[-2] <= needed < widths[-1]
    assert filled.steps == len(widths)


def test_no_hole_exceeds_its_maximum() -> None:
    denoiser = ScriptedDenoiser(lambda number: [LONG])
    (filled,) = NullSlots(CanvasRunner(denoiser, 160), NULL).fill([task(16, most=24)])
    assert [request.canvas.width - 7 for request in denoiser.requests] == [16, 24]
    assert LONG.startswith(filling(filled))


def test_only_full_holes_grow() -> None:
    denoiser = ScriptedDenoiser(lambda number: ["a", LONG])
    (filled,) = NullSlots(CanvasRunner(denoiser, 400), NULL).fill([task(8, 8, most=16)])
    assert [hole.stop - hole.start for hole in filled.layout.holes] == [8, 16]


def test_each_canvas_of_a_batch_finds_its_own_length() -> None:
    denoiser = ScriptedDenoiser(lambda number: [LONG if number == 1 else "b"])
    filled = NullSlots(CanvasRunner(denoiser, 160), NULL).fill([task(16), task(16), task(16)])
    assert [filling(one) for one in filled] == ["b", "b", "b"]
    assert [one.steps for one in filled] == [1, 2, 1]


class Finishing(Denoiser):
    """Full canvases whose runs finish with the given reasons."""

    def __init__(self, *finishes: Finish) -> None:
        super().__init__(tiny_model())
        self.finishes = list(finishes)

    def run(self, requests: Sequence[DenoiseRequest], on_step: StepCallback | None = None) -> list[DenoiseResult]:
        finish = self.finishes.pop(0)
        return [
            DenoiseResult(
                torch.full((one.canvas.width,), 60),
                one.canvas.hole_columns,
                torch.zeros(len(one.canvas.hole_columns)),
                torch.zeros(len(one.canvas.hole_columns)),
                5,
                finish,
                4,
                4,
            )
            for one in requests
        ]


@pytest.mark.parametrize("finish", ["deadline", "cancelled"])
def test_the_finished_canvas_replaces_a_longer_one_that_was_cut_off(finish: Finish) -> None:
    (filled,) = NullSlots(CanvasRunner(Finishing("steps", finish), 160), NULL).fill([task(8)])
    assert filled.layout.holes[0].stop - filled.layout.holes[0].start == 8
    assert filled.result.finish == "steps" and (filled.steps, filled.encoded_tokens) == (10, 8)


def test_after_the_deadline_nothing_is_doubled() -> None:
    denoiser = Finishing("deadline")
    NullSlots(CanvasRunner(denoiser, 160), NULL).fill([task(8)])
    assert denoiser.finishes == []


def test_a_hole_longer_than_a_canvas_is_filled_block_after_block() -> None:
    runner = CanvasRunner(Denoiser(tiny_model()), 32)
    (filled,) = NullSlots(runner, NULL).fill([task(64, most=64)])
    assert filled.result.tokens.shape == (71,)
    assert filled.result.tokens.min() >= 0 and filled.result.tokens[-3:].tolist() == [44, 45, 46]
    assert filled.steps == 3  # 71 columns in blocks of 32, a step each
    assert runner.timings.denoise > 0


def test_results_have_the_order_of_the_requests() -> None:
    runner = CanvasRunner(Denoiser(tiny_model()), 32)
    requests = [task(size).request(lay_out([size])) for size in (60, 8, 70, 9)]
    results = runner.run(requests)
    assert [len(result.tokens) for result in results] == [67, 15, 77, 16]


def test_a_score_is_the_difference_from_the_trend_over_log_length() -> None:
    lengths = [4, 8, 16, 32, 64]
    trend = [3.0 - 0.4 * n for n in range(5)]  # more certain with each doubling
    assert length_scores(lengths, trend) == pytest.approx([0.0] * 5, abs=1e-9)
    trend[2] -= 0.5
    scores = length_scores(lengths, trend)
    assert scores.index(max(scores)) == 2
    assert length_scores([4, 8], [2.0, 1.0]) == [-2.0, -1.0]


class Probed(Denoiser):
    """Gives holes an entropy by length, and records how many steps were made of each length."""

    def __init__(self, entropies: dict[int, float]) -> None:
        super().__init__(tiny_model())
        self.entropies = entropies
        self.made: dict[int, int] = {}

    def run(self, requests: Sequence[DenoiseRequest], on_step: StepCallback | None = None) -> list[DenoiseResult]:
        runs = [self.start(one) for one in requests]
        results = []
        for _ in range(requests[0].sampling.max_steps):
            for run in runs:
                length = len(run.columns)
                run.entropy = torch.full((length,), self.entropies[length])
                run.steps += run.finished is None
                run.finished = run.finished or ("steps" if run.remaining == 0 else None)
                self.made[length] = run.steps
            if on_step is not None and on_step(runs) is False:
                break
        for run, one in zip(runs, requests, strict=True):
            length, tokens = len(run.columns), one.canvas.tokens.clone()
            tokens[run.columns] = 100 + length
            results.append(DenoiseResult(tokens, run.columns, -run.entropy, run.entropy, run.steps, "steps", 4, 1))
            self.close(run)
        return results


ENTROPIES = {4: 3.0, 8: 2.0, 16: 1.4, 32: 0.4, 64: 0.3, 128: 0.1}


def choose(monkeypatch: pytest.MonkeyPatch, denoiser: Denoiser, length: int) -> list[int]:
    """Makes the causal encoder prefer the canvas with this length; returns the number of texts in each pass."""
    passes: list[int] = []

    def score(
        model: object,
        cache: object,
        prompt: object,
        known: Sequence[int],
        continuations: Sequence[Sequence[int]],
        stop: object,
    ) -> list[torch.Tensor]:
        passes.append(len(continuations))
        return [torch.full((len(one),), 0.0 if one[0] == 100 + length else -1.0) for one in continuations]

    monkeypatch.setattr(scorer, "causal_log_probabilities", score)
    return passes


def test_lengths_are_probed_and_the_best_two_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for length in (8, 32):
        denoiser = Probed(ENTROPIES)
        passes = choose(monkeypatch, denoiser, length)
        (filled,) = Probing(CanvasRunner(denoiser, 256)).fill([task(32, sampling=SamplingConfig(max_steps=9))])
        assert denoiser.made == {4: 2, 8: 9, 16: 2, 32: 9, 64: 2}
        assert filled.layout.canvas.width - 7 == length
        assert (filled.steps, filled.encoded_tokens) == (24, 5) and passes == [2]


def test_the_callback_sees_the_best_two_once_they_are_known() -> None:
    seen: list[list[tuple[int, int]]] = []

    def watch(runs: Sequence[CanvasRun]) -> bool:
        seen.append([(len(run.columns), run.steps) for run in runs])
        return len(seen) < 3

    denoiser = Probed(ENTROPIES)
    Probing(CanvasRunner(denoiser, 256)).fill([task(32, sampling=SamplingConfig(max_steps=9))], watch)
    assert [sorted(one) for one in seen] == [[(8, n), (32, n)] for n in (2, 3, 4)]


def test_the_best_two_go_on_from_their_probe() -> None:
    requests = [task(size, sampling=SamplingConfig(max_steps=6)).request(lay_out([size])) for size in (4, 8, 16)]
    runner = CanvasRunner(Denoiser(tiny_model()), 160)
    whole = runner.run(requests)
    results = runner.probe(requests, 2, lambda entropies: [2, 0])
    assert [one.steps for one in results] == [6, 2, 6]
    for index in (0, 2):
        assert torch.equal(results[index].tokens, whole[index].tokens)


def test_a_probe_beside_other_requests_gives_the_same_text() -> None:
    one = task(8, sampling=SamplingConfig(max_steps=5))
    (alone,) = Probing(CanvasRunner(Denoiser(tiny_model()), 160)).fill([one])
    scheduler = Scheduler(Denoiser(tiny_model()))
    try:
        futures = [
            scheduler.submit(lambda denoiser: Probing(CanvasRunner(denoiser, 160)).fill([one])[0], Order())
            for _ in range(2)
        ]
        for future in futures:
            found = future.result(timeout=PATIENCE_S)
            assert torch.equal(found.result.tokens, alone.result.tokens) and found.steps == alone.steps
    finally:
        scheduler.close()


def test_probed_lengths_stay_within_the_maximum_and_one_canvas(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = Probed(ENTROPIES)
    choose(monkeypatch, denoiser, 4)
    probing = Probing(CanvasRunner(denoiser, 60))
    for fill_task, lengths in (
        (task(64, most=512), {4, 8, 16, 32}),
        (task(64, most=8), {4, 8}),
        (task(8), {4, 8, 16}),
    ):
        denoiser.made.clear()
        probing.fill([fill_task])
        assert denoiser.made.keys() == lengths


def test_probing_with_random_weights_and_several_holes() -> None:
    probing = Probing(CanvasRunner(Denoiser(tiny_model()), 160))
    (filled,) = probing.fill([task(8, 8, sampling=SamplingConfig(max_steps=3))])
    sizes = {hole.stop - hole.start for hole in filled.layout.holes}
    assert len(sizes) == 1 and sizes <= {4, 8, 16}
    assert filled.result.tokens.min() >= 0


def test_a_canvas_whose_end_was_not_reached_is_not_chosen() -> None:
    probing = Probing(CanvasRunner(Denoiser(tiny_model()), 16), lengths=(60,))
    (filled,) = probing.fill([task(60, deadline=0.0)])
    assert filled.result.finish == "deadline"


def test_the_callback_stops_a_fill() -> None:
    seen: list[int] = []

    def stop(runs: Sequence[CanvasRun]) -> bool:
        seen.append(runs[0].steps)
        return False

    sampling = SamplingConfig(max_steps=9)
    (filled,) = NullSlots(CanvasRunner(Denoiser(tiny_model()), 160), NULL).fill([task(8, sampling=sampling)], stop)
    assert seen == [1] and filled.result.finish == "cancelled"

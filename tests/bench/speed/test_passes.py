"""The budget of passes: how many a whole infill with the 26B takes. A change that lowers it lowers the numbers here."""

from __future__ import annotations

import pytest

from bench.speed.passes import SAMPLING, STEPS, count_passes, small_model
from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import DenoiseRequest
from engine.denoiser import Denoiser
from engine.graphs.recorded_steps import bucket_for
from infill.complete.hole_length import PROBE_STEPS


@pytest.mark.slow
def test_an_infill_stays_within_its_passes() -> None:
    passes = count_passes()
    cold, key = passes["cold"], passes["next keystroke"]
    assert len(cold.denoise) + len(cold.score) <= 14
    finished = cold.denoise[PROBE_STEPS:STEPS]
    assert len(cold.denoise) <= STEPS + 4, "the best two go on from their probe; then four steps of repair"
    assert max(cold.denoise) <= 730 and max(finished) <= 292
    assert key.prompt == [] and key.count <= 6, "one canvas, which starts from the last one"
    assert max(key.denoise) <= 110


def test_a_recorded_probe_of_five_lengths_has_no_unused_rows() -> None:
    denoiser = Denoiser(small_model())
    runs = [
        denoiser.start(DenoiseRequest([3, 4], Canvas.of(Known(range(81)), Slots(length)), SAMPLING))
        for length in (4, 8, 16, 32, 64)
    ]
    bucket = bucket_for(runs)
    assert bucket.batch * bucket.width == 800, "1,536 with rows and columns in powers of two"

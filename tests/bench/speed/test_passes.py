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
    assert cold.count - len(cold.prompt) == key.count <= 14 and key.prompt == []
    for one in (cold, key):
        finished = one.denoise[PROBE_STEPS:STEPS]
        assert len(one.denoise) <= STEPS + 4, "the best two go on from their probe; then four steps of repair"
        assert max(one.denoise) <= 730 and max(finished) <= 292
        assert len(one.score) <= 2


def test_a_recorded_probe_of_five_lengths_has_no_unused_rows() -> None:
    denoiser = Denoiser(small_model())
    runs = [
        denoiser.start(DenoiseRequest([3, 4], Canvas.of(Known(range(81)), Slots(length)), SAMPLING))
        for length in (4, 8, 16, 32, 64)
    ]
    bucket = bucket_for(runs)
    assert bucket.batch * bucket.width == 800, "1,536 with rows and columns in powers of two"

"""Batches of canvases in the engine: every canvas is filled, and the figures are reported."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from bench.gpu.batch import Shape, _models, fill, measure, notes, requests_of, rows  # noqa: E402
from bench.gpu.step_shapes import BUILDS, TINY, random_plain_model  # noqa: E402
from engine.config import ModelConfig  # noqa: E402
from engine.denoiser import Denoiser  # noqa: E402
from engine.errors import InputError  # noqa: E402

SHAPE = Shape(context=20, hole=4, steps=3)


@pytest.fixture
def denoiser() -> Denoiser:
    config = ModelConfig.from_json(TINY)
    return Denoiser(random_plain_model(config, BUILDS["bf16"], torch.device("cpu"), torch.float32))


def test_every_canvas_takes_all_its_steps_in_batches_of_any_size(denoiser: Denoiser) -> None:
    requests = requests_of(denoiser.model.config.vocab_size, 4, SHAPE)
    assert len({tuple(request.prompt) for request in requests}) == 4
    taken = list[int]()
    step = denoiser.step

    def counted(runs: object) -> None:
        taken.append(len(runs))  # type: ignore
        step(runs)  # type: ignore

    denoiser.step = counted  # type: ignore
    fill(denoiser, requests, 3)
    assert taken == [3] * 3 + [1] * 3


def test_figures_and_their_table(denoiser: Denoiser) -> None:
    found = {"tiny": measure(denoiser, SHAPE, (1, 2), 2)}
    table = rows("tiny", found["tiny"])
    assert [row[:2] for row in table] == [["tiny", "1"], ["tiny", "2"]] and table[0][-1] == "1.00"
    assert found["tiny"]["prompt_ms"] > 0 and "a hole of 4" in notes(SHAPE, 2, found)[0]
    figures = found["tiny"]["steps"]["2"]
    assert len(figures["step_ms"].samples) == 2 and figures["gain"].median > 0


@pytest.mark.parametrize(("formats", "words"), [(["int5"], "no format"), (["int4"], "--format is for")])
def test_a_format_that_cannot_be_measured_is_refused(formats: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        _models(formats, "pocket")

"""Masked models in the whole pipeline, from a folder to completions; the weights are random, so the texts are too."""

from __future__ import annotations

from pathlib import Path

import pytest

import infill.complete
from engine.errors import Cancelled
from infill.complete.completion import Completer
from infill.complete.hole_length import Growing, Probing
from infill.complete.pipeline import load_model, make_completer
from infill.request import Hole, InfillRequest, StepView
from infill.settings import Settings
from tests.infill.tiny_masked import completer, save_dream, save_open_dcoder

TEXT = "def add(a, b):\n    total = \n    return total\n"
AT = TEXT.index("= ") + 2


@pytest.fixture(scope="module")
def dreamon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dream(tmp_path_factory.mktemp("models") / "dreamon", grows=True)


def request(**changes: object) -> InfillRequest:
    return InfillRequest(**{"text": TEXT, "holes": (Hole(AT, AT),), "path": "add.py", **changes})  # type: ignore[arg-type]


def test_each_published_layout_is_loaded_as_its_kind(dreamon: Path, tmp_path: Path) -> None:
    for folder, kind in (
        (dreamon, Growing),
        (save_dream(tmp_path / "dream"), Probing),
        (save_open_dcoder(tmp_path / "open"), Probing),
    ):
        settings = Settings(model=str(folder), device="cpu", threads=1)
        found = make_completer(load_model(settings), settings)
        assert isinstance(found, Completer) and isinstance(found.lengths, kind)


@pytest.mark.parametrize("exact", [True, False])
def test_a_hole_is_filled_with_one_line(dreamon: Path, exact: bool) -> None:
    pipeline = completer(dreamon, exact=exact)
    result = pipeline.complete(request(candidates=3))
    (completion,) = result.completions
    assert len(completion.candidates) >= 3 and not any("\n" in one.text for one in completion.candidates)
    assert all(0 <= one.confidence <= 1 for one in completion.candidates)
    assert result.steps > 0 and result.hole > 0 and not any("<|" in one.text for one in completion.candidates)


def test_the_next_key_reviews_the_last_text(dreamon: Path) -> None:
    pipeline = completer(dreamon)
    first = pipeline.complete(request())
    assert pipeline.last_draft.canvas is not None
    draft = pipeline.last_draft.canvas.text
    assert draft
    text = TEXT[:AT] + draft[0] + TEXT[AT:]
    second = pipeline.complete(request(text=text, holes=(Hole(AT + 1, AT + 1),)))
    assert second.completions[0].candidates
    assert second.steps <= first.steps


def test_several_holes_share_one_sequence(dreamon: Path) -> None:
    name = TEXT.index("add")
    views: list[StepView] = []
    result = completer(dreamon).complete(request(holes=(Hole(name, name + 3), Hole(AT, AT))), views.append)
    assert len(result.completions) == 2 and result.completions[0].hole == Hole(name, name + 3)
    shown = "".join(piece.text for piece in views[-1].pieces if piece.state == "known")
    assert "(a, b):" in shown and "return total" in shown


def test_a_block_may_grow_beyond_its_first_slots(dreamon: Path) -> None:
    text = "def add(a, b):\n"
    result = completer(dreamon).complete(request(text=text, holes=(Hole(len(text), len(text)),), lines="block"))
    assert len(result.completions) == 1


def test_steps_deadline_and_cancellation(dreamon: Path) -> None:
    pipeline = completer(dreamon, copy_drafts=False)
    assert pipeline.complete(request(steps=2)).steps <= 2
    assert pipeline.complete(request(deadline_ms=0.001)).steps == 1
    with pytest.raises(Cancelled):
        pipeline.complete(request(), stop=lambda: True)
    seen: list[StepView] = []
    stopped = pipeline.complete(request(), lambda view: seen.append(view) or False)
    assert len(seen) == 1 and stopped.steps == 1


def test_a_seed_determines_the_result(dreamon: Path) -> None:
    one, two = (completer(dreamon).complete(request(seed=7, candidates=2)).completions[0] for _ in range(2))
    assert [candidate.text for candidate in one.candidates] == [candidate.text for candidate in two.candidates]


def test_the_next_keystroke_reads_what_is_new(dreamon: Path) -> None:
    pipeline = completer(dreamon, copy_drafts=False)
    first = pipeline.complete(request(text="# a file\n" * 40 + TEXT, holes=(Hole(360 + AT, 360 + AT),)))
    typed = "# a file\n" * 40 + TEXT[:AT] + "(" + TEXT[AT:]
    at = 360 + AT + 1
    second = pipeline.complete(request(text=typed, holes=(Hole(at, at),)))
    assert first.encoded_tokens > 100 and second.encoded_tokens < 20


def test_a_batch_is_filled(dreamon: Path) -> None:
    results = completer(dreamon).complete_batch([request(), request(seed=1)])
    assert len(results) == 2


def test_no_module_of_the_pipeline_names_a_kind_of_noise() -> None:
    for file in Path(infill.complete.__file__).parent.glob("*.py"):
        source = file.read_text("utf-8")
        for word in (
            "NoiseConfig",
            "noise.kind",
            "mask_token",
            "MaskedDenoiser",
            "MaskedSampling",
            "engine.masked",
            "dream",
        ):
            assert word not in source, (file.name, word)

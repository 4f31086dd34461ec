"""Text from a canvas: without null slots and typed text, with line ends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from engine.canvas import Canvas, Known, Slots
from engine.denoiser import Denoiser, DenoiseRequest, DenoiseResult
from infill.complete.canvas_text import HoleText, hole_text, step_view
from infill.prompts.prompt import HoleColumns, HoleKind, Layout
from tests.infill.fakes import FEW_STEPS, NULL, pocket, pocket_tokens, tiny_model

IN_LINE, LINE, BLOCK = HoleKind(True, False), HoleKind(True, True), HoleKind(False, True)


def filled(slots: Sequence[int], kind: HoleKind = IN_LINE, healed: str = "") -> HoleText:
    """The text of a hole with these slots, each with probability one half."""
    layout = Layout([1], Canvas.of(Known([50]), Slots(len(slots))), (HoleColumns(1, 1 + len(slots), healed),), ())
    half = torch.full((len(slots),), 0.5).log()
    columns = torch.arange(1, 1 + len(slots))
    result = DenoiseResult(torch.tensor([50, *slots]), columns, half, -half, 1, "stable", 1, 1)
    return hole_text(pocket(), layout, result, 0, kind)


def encode(text: str) -> list[int]:
    return pocket_tokens().encode(text)


def test_null_slots_are_dropped_anywhere() -> None:
    one, other = encode("alpha"), encode(" + beta")
    text = filled([NULL, *one, NULL, *other, NULL, NULL])
    assert text.text == "alpha + beta"
    assert text.tokens == len(one) + len(other)
    assert "".join(text.text[start:end] for start, end in text.token_spans) == text.text


def test_typed_text_is_not_repeated() -> None:
    text = filled([*encode("return found"), NULL], healed="ret")
    assert text.text == "urn found"
    assert text.token_spans[0][0] == 0 and text.token_spans[-1] == (9, 9)


def test_a_hole_of_one_line_ends_at_a_line_break() -> None:
    text = filled([*encode("x = 1\ny = 2"), NULL])
    assert text.text == "x = 1"
    assert all(0 <= start <= end <= 5 for start, end in text.token_spans)


def test_whole_lines_end_in_a_line_break_unless_blank() -> None:
    assert filled([*encode("    x = 1"), NULL], LINE).text == "    x = 1\n"
    assert filled([*encode("x = 1  "), NULL], LINE).text == "x = 1\n"
    assert filled([*encode("x\n    y"), NULL], BLOCK).text == "x\n    y\n"
    assert filled([*encode("    "), NULL], LINE).text == ""
    assert filled([NULL, NULL], BLOCK).text == ""
    assert filled([*encode("\n        x = 1"), NULL], LINE, healed="\n").text == "        x = 1\n"


def test_the_text_ends_at_invalid_bytes() -> None:
    euro = encode("日")
    assert len(euro) > 1 and filled([*encode("ab"), *euro, NULL]).text == "ab日"
    text = filled([*encode("ab"), euro[-1], *encode("cd"), NULL])
    assert text.text == "ab"
    assert text.token_spans[-1] == (2, 2)


def test_slots_that_were_not_reached_have_no_text() -> None:
    assert filled([*encode("ab"), -1, -1]).text == "ab"


def test_confidence_includes_the_slot_after_the_text() -> None:
    text = HoleText("ab", ((0, 1), (1, 2), (2, 2), (2, 2)), tuple(torch.tensor([0.9, 0.4, 0.6, 0.01]).log().tolist()))
    assert text.confidence == pytest.approx((0.9 * 0.4 * 0.6) ** (1 / 3))
    assert text.cut("a").confidence == pytest.approx((0.9 * 0.4) ** (1 / 2))
    assert filled([NULL, NULL]).confidence == pytest.approx(0.5)


def test_a_text_that_is_cut_may_get_a_line_end() -> None:
    text = HoleText("f(x\n", ((0, 1), (1, 2), (2, 3)), (-0.1, -0.2, -0.3))
    assert text.cut("f\n").text == "f\n"
    assert text.cut("f\n").token_spans == ((0, 1), (1, 1), (1, 1))
    assert text.cut("f(x").tokens == 3


def test_the_view_shows_known_text_guesses_and_null_slots() -> None:
    known, end = encode("x = "), encode("\n")
    canvas = Canvas.of(Known(known), Slots(3), Known(end))
    denoiser = Denoiser(tiny_model())
    run = denoiser.start(DenoiseRequest([2, 5, 6], canvas, FEW_STEPS))
    try:
        denoiser.step([run])
        run.argmax = torch.tensor([*encode("é")[:1], *encode("1"), NULL])
        run.accepted = torch.tensor([False, True, True])
        view = step_view(run, pocket())
        assert (view.step, view.max_steps) == (1, FEW_STEPS.max_steps)
        assert [piece.state for piece in view.pieces] == ["known", "noise", "settled", "null", "known"]
        assert [piece.text for piece in view.pieces][2:] == ["1", "·", "\n"]
        run.finished = "stable"
        assert "noise" not in {piece.state for piece in step_view(run, pocket()).pieces}
    finally:
        denoiser.close(run)

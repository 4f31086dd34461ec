"""Proposals from three sources, and the evidence for each."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import infill.complete.proposals
from infill.complete.causal_draft import CausalDraft
from infill.complete.completion import Completer
from infill.complete.confidence import Calibration
from infill.request import Candidate, Evidence, InfillRequest
from tests.infill.fakes import ScriptedDenoiser, request, scripted_completer


def with_draft(monkeypatch: pytest.MonkeyPatch, draft: str, *texts: str, copies: bool = False) -> Completer:
    """A completer whose canvases are filled with `texts` and whose causal encoder writes `draft`."""
    monkeypatch.setattr(infill.complete.proposals, "causal_draft", lambda *args: CausalDraft(draft))
    return scripted_completer(*texts, causal_draft=True, copy_drafts=copies)


def by_source(completer: Completer, infill_request: InfillRequest) -> dict[str, Candidate]:
    return {candidate.source: candidate for candidate in completer.complete(infill_request).completions[0].candidates}


def test_the_causal_draft_is_a_candidate_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = by_source(with_draft(monkeypatch, "one + two", "total"), request("x = §\n"))
    assert found["model"].text == "total" and found["causal"].text == "one + two"
    drafted, denoised = found["causal"].evidence, found["model"].evidence
    assert (drafted.drafted, drafted.denoised, drafted.certainty) == (1.0, 0.0, 0.0)
    assert (denoised.drafted, denoised.denoised) == (0.0, 1.0) and denoised.certainty == pytest.approx(
        math.log(0.9), abs=0.01
    )
    assert drafted.agreeing == denoised.agreeing == 0.0


def test_equal_texts_of_two_sources_are_one_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    (only,) = by_source(with_draft(monkeypatch, "total", "total"), request("x = §\n")).values()
    assert only.source == "model" and only.evidence.denoised == only.evidence.drafted == 1.0
    assert only.evidence.agreeing == 1.0


def test_texts_with_the_same_beginning_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    found = by_source(with_draft(monkeypatch, "self.total + 1", "self.total"), request("x = §\n"))
    assert found["causal"].evidence.agreeing == found["model"].evidence.agreeing == 1.0


def test_a_copy_has_the_evidence_of_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "value = compute(alpha, beta)\nprint(value)\nvalue = comp§\n"
    found = by_source(with_draft(monkeypatch, "utation", "uted", copies=True), request(text))
    assert found["copy"].text == "ute(alpha, beta)" and found["copy"].evidence.copied == 1.0
    assert all(math.isfinite(one.evidence.seam) and one.evidence.seam < 0 for one in found.values())
    assert all(one.evidence.weakest <= one.evidence.middle < 0 for one in found.values())


def test_a_draft_that_breaks_the_parse_is_cut_back(monkeypatch: pytest.MonkeyPatch) -> None:
    completer = with_draft(monkeypatch, "    a = x\n    b = (a\n", "")
    found = by_source(completer, request("def f(x):\n§print(f(1))\n", "block"))
    assert found["causal"].text == "    a = x\n" and found["causal"].shown


@pytest.mark.parametrize(("draft", "canvases"), [("2", 1), ("", 2), ("))", 2), ("(2)) + 1", 1)])
def test_a_broken_canvas_is_denoised_again_only_if_no_draft_parses(
    monkeypatch: pytest.MonkeyPatch, draft: str, canvases: int
) -> None:
    completer = with_draft(monkeypatch, draft, "(1 + )", "(1 + 3)")
    found = by_source(completer, request("x = §\ny = 2\n"))
    assert isinstance(completer.denoiser, ScriptedDenoiser)
    assert len(completer.denoiser.requests) == canvases
    assert canvases == 1 or found["model"].text == "(1 + 3)"


def drafting(*texts: str) -> Completer:
    """A completer whose canvases are filled with `texts` and whose causal encoder has random weights."""
    return scripted_completer(*texts, causal_draft=True)


def count_drafting(completer: Completer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the passes of the model while it drafts."""
    passes, model = [0], completer.denoiser.model
    encode = model.encode

    def counted(*args: object) -> object:
        passes[-1] += 1
        return encode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "encode", counted)
    return passes


def test_a_predicted_draft_takes_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    infill_request = request("def f(number):\n    return §\n")
    drafted = by_source(drafting("0"), infill_request)["causal"].text
    assert len(drafted) > 20
    slow, fast = drafting("0"), drafting(drafted)
    slow_passes = count_drafting(slow, monkeypatch)
    expected = by_source(slow, infill_request)["causal"]
    monkeypatch.undo()
    fast_passes = count_drafting(fast, monkeypatch)
    (both,) = by_source(fast, infill_request).values()
    assert both.text == expected.text and both.evidence.drafted == both.evidence.denoised == 1.0
    assert both.evidence.middle == pytest.approx(expected.evidence.middle, abs=1e-4)
    assert 2 * fast_passes[0] < slow_passes[0]


def test_typing_the_draft_reuses_its_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "def f(number):\n    x = §\n"
    completer = drafting("0")
    drafted = by_source(completer, request(text))["causal"].text
    typed = text.replace("§", drafted[:3] + "§")
    fresh, passes = drafting("0"), count_drafting(completer, monkeypatch)
    expected = by_source(fresh, request(typed))["causal"]
    slow = passes[0]
    passes[0] = 0
    assert by_source(completer, request(typed))["causal"].text == expected.text
    if drafted[3:].startswith(expected.text):  # else healing allows other first tokens, and the draft differs
        assert passes[0] < slow


def test_the_calibration_decides_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    completer = with_draft(monkeypatch, "one + two", "total")
    for weight, first in ((5.0, "causal"), (-5.0, "model")):
        calibration = Calibration({"drafted": weight}, 0.0)
        completer.model = replace(completer.model, calibration=calibration)
        candidates = completer.complete(request("x = §\n")).completions[0].candidates
        assert candidates[0].source == first
        expected = calibration.confidence(candidates[0].evidence)
        assert candidates[0].confidence == pytest.approx(expected, abs=1e-4)


def test_each_of_several_holes_has_a_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    completer = with_draft(monkeypatch, "one", "total")
    completer.denoiser.script = lambda number: ["total", "total"]  # type: ignore[attr-defined]
    result = completer.complete(request("x = §\ny = §\n"))
    sources = [{one.source for one in completion.candidates} for completion in result.completions]
    assert sources == [{"model", "causal"}] * 2


def test_an_empty_text_has_no_likelihood() -> None:
    completer = scripted_completer("")
    candidate = completer.complete(request("x = 1\n§\n")).completions[0].candidates[0]
    assert isinstance(candidate.evidence, Evidence) and not candidate.shown

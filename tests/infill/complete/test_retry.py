"""A second model fills a hole again: a scripted canvas that the checks refuse, and a code model that writes a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from engine.errors import Cancelled, GessoError, InputError, ModelError, Stop
from infill.complete.causal_completion import CausalCompleter
from infill.complete.retry import FirstAttempt, Pipeline, RetryCompleter, better
from infill.request import Hole, HoleCompletion, InfillRequest, InfillResult, OnStep, StepView
from tests.infill.fakes import request, scripted_completer
from tests.infill.tiny_coder import coder

REQUEST = request("x = §\n")
BROKEN, GOOD = "(1", "first"


class Loads:
    """Loads the second model, and counts how often."""

    def __init__(self, second: Pipeline | None) -> None:
        self.second, self.count = second, 0

    def __call__(self) -> Pipeline | None:
        self.count += 1
        return self.second


class Asked:
    """A second model that records its requests."""

    def __init__(self, second: Pipeline, error: GessoError | None = None) -> None:
        self.second, self.error = second, error
        self.requests: list[InfillRequest] = []

    def complete(self, request: InfillRequest, on_step: OnStep | None = None, stop: Stop | None = None) -> InfillResult:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return self.second.complete(request, on_step, stop)

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]:
        self.requests += requests
        return self.second.complete_batch(requests)


def writer(text: str = GOOD) -> CausalCompleter:
    """Writes `text` after `x = `."""
    return coder(f"x = {text}\n", min_confidence=0.0)


def test_a_canvas_that_the_checks_refuse_is_filled_by_the_second_model() -> None:
    loads = Loads(writer())
    first = scripted_completer(BROKEN)
    refused = first.complete(REQUEST)
    assert not refused.completions[0].shown and refused.completions[0].candidates[0].refused
    completer = RetryCompleter(first, loads)
    found = completer.complete(REQUEST)
    assert (found.completions[0].text, found.completions[0].shown, found.model) == (GOOD, True, "tiny")
    completer.complete(REQUEST)
    assert loads.count == 1


def test_the_second_model_is_not_loaded_for_a_text_that_is_shown_or_has_a_low_confidence() -> None:
    loads = Loads(writer())
    shown = RetryCompleter(scripted_completer("1"), loads).complete(REQUEST)
    assert shown.completions[0].shown and shown.model == "auto"
    unsure = RetryCompleter(scripted_completer(BROKEN, confidence=0.5, min_confidence=0.99), loads).complete(REQUEST)
    assert "below the threshold" in str(unsure.completions[0].reason) and unsure.model == "auto"
    assert loads.count == 0


def test_the_first_result_stays_if_the_second_model_fails_or_shows_no_more() -> None:
    expected = scripted_completer(BROKEN).complete(REQUEST)
    seconds: list[Pipeline | None] = [writer("(3"), Asked(writer(), ModelError("The weights are damaged.")), None]
    for second in seconds:
        found = RetryCompleter(scripted_completer(BROKEN), Loads(second)).complete(REQUEST)
        assert found.completions == expected.completions and found.model == expected.model
    with pytest.raises(Cancelled):
        RetryCompleter(scripted_completer(BROKEN), Loads(Asked(writer(), Cancelled()))).complete(REQUEST)


def test_the_second_model_gets_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("infill.complete.retry.time.monotonic", lambda: now)
    result = scripted_completer(BROKEN).complete(REQUEST)
    attempt = FirstAttempt(replace(REQUEST, deadline_ms=500.0))
    now = 100.2
    again = attempt.retry(result)
    assert again is not None and again.deadline_ms == pytest.approx(300)
    assert replace(again, deadline_ms=None) == REQUEST
    now = 100.5
    assert attempt.retry(result) is None


def test_steps_of_both_models_are_shown_and_a_stopped_request_is_not_retried() -> None:
    views: list[StepView] = []

    def watch(view: StepView) -> bool:
        views.append(view)
        return len(views) != stop_at

    stop_at = 0
    first = scripted_completer(BROKEN)
    found = RetryCompleter(first, Loads(writer("last"))).complete(REQUEST, watch)
    assert found.completions[0].text == "last"
    assert any(piece.text == "last" and piece.state == "settled" for piece in views[-1].pieces)
    attempt = FirstAttempt(REQUEST, watch)
    assert attempt.on_step is not None and attempt.retry(first.complete(REQUEST)) is not None
    stop_at = len(views) + 1
    assert attempt.on_step(views[0]) is False
    assert attempt.retry(first.complete(REQUEST)) is None


def test_only_refused_rows_of_a_batch_are_retried() -> None:
    second = Asked(writer())
    completer = RetryCompleter(scripted_completer("1", BROKEN, "3"), Loads(second))
    outside = replace(REQUEST, holes=(Hole(50, 50),))
    rows = [REQUEST, request("y = 0\nx = §\n"), outside, request("x = §\n")]
    results = completer.complete_batch(rows)
    assert isinstance(results[2], InputError)
    assert [one.completions[0].text for one in results if isinstance(one, InfillResult)] == ["1", GOOD, "3"]
    assert [one.text for one in second.requests] == ["y = 0\nx = \n"]


def test_of_two_results_the_one_that_shows_more_holes_counts_with_the_time_of_both() -> None:
    broken, good = scripted_completer(BROKEN).complete(REQUEST), writer().complete(REQUEST)
    (hidden,), (shown,) = broken.completions, good.completions

    def result(*completions: HoleCompletion, model: str) -> InfillResult:
        return replace(good, completions=completions, model=model, timings_ms={"encode": 1.0, "total": 2.0})

    one, two = result(shown, hidden, model="one"), result(shown, shown, model="two")
    assert better(one, two).model == better(two, one).model == "two"
    assert better(one, result(hidden, shown, model="two")).model == "one"
    assert better(one, two).timings_ms == {"encode": 2.0, "total": 4.0}

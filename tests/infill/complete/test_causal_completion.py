"""The pipeline of code models, with tiny ones: random, or writing a given text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from engine import guesses
from engine.decoder import Decoder
from engine.errors import Cancelled, InputError
from engine.prefix_cache import PrefixCache
from infill.complete.causal_completion import BLOCK_TOKENS, BRANCHES, LINE_TOKENS, READ_CHUNK, CausalCompleter
from infill.complete.code_model import CodeModel
from infill.complete.pipeline import make_completer
from infill.request import Candidate, Hole, InfillRequest, InfillResult, Neighbour, StepView
from infill.settings import Settings
from tests.infill.fakes import filled, request
from tests.infill.tiny_coder import CORPUS, coder, fim_prompt, random_model

HOLES = [
    request("x = §\n"),
    request("def f(value):\n    return §\n"),
    request("value = 1\n§\nprint(value)\n", "one"),
    request("value = 1\n§print(value)\n", "one"),
    request("print(§)\n"),
    request("§"),
    request("text = 'wor§ld'\n", language=None),
]


def only(result: InfillResult) -> Sequence[Candidate]:
    (completion,) = result.completions
    return completion.candidates


def count_passes(completer: CausalCompleter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of every pass from now on."""
    counted: list[int] = []
    model = completer.decoder.model
    encode = model.encode

    def counting(tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        counted.append(tokens.shape[1])
        return encode(tokens, *rest)

    monkeypatch.setattr(model, "encode", counting)
    return counted


def encoded_by(completer: CausalCompleter, work: Callable[[], object]) -> int:
    """The prompt tokens that `work` encodes, in all prompts."""
    cache = completer.decoder.cache
    assert isinstance(cache, PrefixCache)
    before = cache.encoded_tokens
    work()
    return cache.encoded_tokens - before


# reading ahead


@pytest.mark.parametrize("line", [30, 90, 160, -2], ids=["top", "middle", "below", "end"])
def test_after_reading_ahead_a_completion_on_that_line_reads_few_tokens(line: int) -> None:
    """In a file longer than the prompt, with another file open; the line is read while it is empty."""
    lines = CORPUS[0].splitlines(keepends=True)
    typed = lines[line].rstrip("\n")
    before, after = "".join(lines[:line]), "\n" + "".join(lines[line:][1:])

    def at(column: int) -> InfillRequest:
        return request(before + typed[:column] + "§" + after, path="a.py", neighbours=(Neighbour("b.py", CORPUS[1]),))

    completer = coder()
    assert encoded_by(completer, lambda: completer.read_ahead(at(0))) > 500
    assert encoded_by(completer, lambda: completer.read_ahead(at(0))) == 0
    for column in range(4, min(40, len(typed))):
        assert encoded_by(completer, lambda column=column: completer.complete(at(column))) <= 12  # type: ignore[misc]


def test_cancelled_reading_ahead_keeps_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    completer, infill_request = coder(), request(CORPUS[0][:3000] + "§\n")
    whole = coder().read_ahead(infill_request)
    passes = count_passes(completer, monkeypatch)
    with pytest.raises(Cancelled):
        completer.read_ahead(infill_request, lambda: len(passes) == 3)
    assert passes == [READ_CHUNK] * 3
    assert completer.read_ahead(infill_request, lambda: False) == whole - 3 * READ_CHUNK
    assert completer.complete(infill_request).encoded_tokens == 1


# one hole


def test_what_the_model_writes_is_the_completion() -> None:
    completion = coder("x = first\n").complete(request("x = §\n")).completions[0]
    assert (completion.text, completion.shown, completion.reason) == ("first", True, None)
    assert completion.candidates[0].source == "model" and completion.candidates[0].evidence.denoised == 1.0
    assert 0.5 < completion.confidence <= 1


def test_the_fields_of_a_result() -> None:
    completer, infill_request = coder(), request("x = §\n", seed=7)
    result = completer.complete(infill_request)
    (completion,) = result.completions
    best = completion.candidates[0]
    assert completion.hole == infill_request.holes[0] and completion.candidates
    assert (completion.text, completion.shown) == (best.text, best.shown)
    assert (completion.reason, completion.confidence) == (best.reason, best.confidence)
    assert 1 <= result.steps <= LINE_TOKENS and result.hole == best.tokens
    assert result.prompt_tokens == result.encoded_tokens == len("x =".split()) + 4  # with three marks and a line break
    assert (result.canvas, result.model, result.seed) == (0, "tiny", 7)
    stages = {"context", "encode", "denoise", "checks", "total"}
    assert set(result.timings_ms) == stages and min(result.timings_ms.values()) >= 0
    assert sum(result.timings_ms.values()) == pytest.approx(2 * result.timings_ms["total"])


def test_the_same_request_gets_the_same_result_from_a_cached_prompt() -> None:
    completer = coder()
    first, second = (completer.complete(request("value = 1\nx = §\n")) for _ in range(2))
    for one, other in zip(only(first), only(second), strict=True):
        assert (one.text, one.shown, one.reason) == (other.text, other.shown, other.reason)
        assert one.confidence == pytest.approx(other.confidence, abs=2e-4)
    assert second.encoded_tokens == 1 < first.encoded_tokens == first.prompt_tokens


@pytest.mark.parametrize("infill_request", HOLES, ids=lambda one: one.text)
def test_in_a_hole_of_one_line_no_line_break_is_written(infill_request: InfillRequest) -> None:
    result = coder().complete(infill_request)
    for candidate in only(result):
        assert "\n" not in candidate.text.removesuffix("\n") and candidate.text == candidate.text.rstrip(" ")
    assert len(only(result)) <= BRANCHES


def test_a_whole_line_ends_in_a_line_break() -> None:
    infill_request = request("x\n§y\n", "one")
    result = coder("\nfirst\n").complete(infill_request)
    assert result.completions[0].text == "first\n"
    assert filled(infill_request, result) == "x\nfirst\ny\n"


def test_a_block_ends_with_the_text_of_the_model() -> None:
    infill_request = request("x\n§", "block")
    assert coder("\ncall(one)\nlast").complete(infill_request).completions[0].text == "call(one)\nlast\n"


def test_a_block_that_never_ends_is_cut_to_its_lines() -> None:
    result = coder("\nfirst\n").complete(request("x\n§", "block"))
    (candidate,) = only(result)
    lines = candidate.text.split("\n")
    assert lines[-1] == "" and set(lines[:-1]) == {"first"} and result.steps < BLOCK_TOKENS
    assert not candidate.shown and "repeats" in (candidate.reason or "")


def test_a_closing_bracket_after_the_cursor_is_not_written_twice() -> None:
    infill_request = request("print(§)\n")
    result = coder("print(value)\n").complete(infill_request)
    assert filled(infill_request, result) == "print(value)\n"


def test_a_word_that_is_begun_is_completed() -> None:
    infill_request = request("x = fir§\n")
    assert filled(infill_request, coder("x = first\n").complete(infill_request)) == "x = first\n"


def test_an_empty_text_is_not_shown() -> None:
    completion = coder("x =").complete(request("x =§\n")).completions[0]
    assert (completion.text, completion.shown, completion.reason) == ("", False, "the completion is empty")


def test_a_file_without_text_has_a_result() -> None:
    assert coder("first\n").complete(request("§", "one")).completions[0].text == "first\n"


# candidates


def test_candidates_are_distinct_and_best_first() -> None:
    candidates = only(coder().complete(request("x = §\n", candidates=6)))
    texts = [one.text for one in candidates]
    assert BRANCHES < len(texts) == len(set(texts)) <= 6
    order = [(not one.shown, -one.confidence) for one in candidates]
    assert order == sorted(order)
    margins = sorted(one.evidence.margin for one in candidates)
    assert margins[-2] <= 0 <= margins[-1], "only the likeliest is likelier than all others"


def test_copies_from_the_context_are_candidates() -> None:
    text = "first = open(path).read().strip()\nsecond = open(path).§\n"
    candidates = only(coder(copy_drafts=True).complete(request(text)))
    (copy,) = [one for one in candidates if one.source == "copy"]
    assert copy.text == "read().strip()" and copy.tokens > 0 and 0 < copy.confidence < 1
    assert copy.evidence.copied == 1 and copy.evidence.matched > 0 and copy.evidence.denoised == 0
    assert all(one.source != "copy" for one in only(coder().complete(request(text))))


def test_copies_come_from_other_files() -> None:
    other = Neighbour("other.py", "with open(path) as stream:\n    data = stream.read()\n")
    infill_request = request("with open(path) as stream:\n    da§\n", neighbours=(other,))
    assert "ta = stream.read()" in [one.text for one in only(coder(copy_drafts=True).complete(infill_request))]


REPEATED = "first = load_all(path)[index].prompt\nsecond = load_all(path)§\n"


def test_a_copy_that_the_model_writes_too_has_both_sources() -> None:
    best = only(coder("path)[index].prompt\n", copy_drafts=True).complete(request(REPEATED)))[0]
    assert (best.text, best.source, best.shown) == ("[index].prompt", "model", True)
    assert best.evidence.agreeing == best.evidence.copied == best.evidence.denoised == 1


def test_a_copy_is_also_a_guess_that_saves_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "CHOICES", 0)  # none from the prompt, which repeats it too
    passes = []
    for copies in (False, True):
        completer = coder("path)[index].prompt\n", copy_drafts=copies)
        with monkeypatch.context() as counting:
            counted = count_passes(completer, counting)
            completer.complete(request(REPEATED))
            passes.append(len(counted))
    assert passes[1] < passes[0]


def test_a_rejected_text_is_not_shown_again() -> None:
    infill_request = request("x = §\n", language=None, candidates=6)
    first = only(coder().complete(infill_request))[0]
    assert first.shown
    again = coder().complete(request("x = §\n", language=None, candidates=6, rejected=(first.text,)))
    (rejected,) = [one for one in only(again) if one.text == first.text]
    assert not rejected.shown and rejected.reason == "you rejected the same text here before"
    assert again.completions[0].text != first.text and again.completions[0].shown


def test_below_the_threshold_nothing_is_shown() -> None:
    completion = coder(min_confidence=1.0).complete(request("x = §\n", candidates=6)).completions[0]
    assert not completion.shown and "below the threshold 1.00" in (completion.reason or "")
    assert coder(min_confidence=1.0).complete(request("x = §\n", candidates=6, caution=0.0)).completions[0].shown


def test_the_beginning_of_a_line_is_shown_if_the_model_is_not_sure_of_the_whole() -> None:
    """Only if the request allows it, and not a text that was rejected."""
    unsure = coder("x = first + second\n", min_confidence=1.0)
    assert not unsure.complete(request("x = §\n")).completions[0].shown
    completion = unsure.complete(request("x = §\n", beginning=True)).completions[0]
    best = completion.candidates[0]
    assert completion.shown and completion.text == best.text and best.beginning
    assert "first + second".startswith(best.text) and len(best.text) >= 4 and 0.6 <= best.confidence <= 1
    assert not completion.candidates[1].beginning and not completion.candidates[1].shown
    again = unsure.complete(request("x = §\n", beginning=True, rejected=(best.text,))).completions[0]
    assert not again.shown


def test_steps_say_how_much_of_the_line_the_model_is_sure_of() -> None:
    """It grows by words, and is 0 unless the request allows a beginning."""
    script = "first + second * third - fourth / fifth % sixth"
    completer = coder(f"x = {script}\n")

    def sure(**more: Any) -> list[int]:
        views: list[StepView] = []
        completer.complete(request("x =§\n", **more), views.append)
        return [view.sure for view in views]

    careful, usual = sure(beginning=True, caution=2.0), sure(beginning=True)
    assert careful[0] == 0 and len(set(careful)) > 2
    words = ("", "first", "second", "third", "fourth", "fifth", "sixth")
    assert all(f" {script}"[:count].endswith(words) for count in usual)
    assert max(careful) < max(usual) and set(sure(caution=2.0)) == {0}


def test_a_line_that_the_model_is_sure_of_is_shown_whole() -> None:
    completion = coder("x = first + second\n").complete(request("x = §\n", beginning=True)).completions[0]
    assert completion.text == "first + second" and not completion.candidates[0].beginning


def test_the_threshold_of_the_model_holds_if_none_is_set() -> None:
    model = CodeModel("tiny", Decoder(random_model()), fim_prompt(), min_confidence=1.0)
    infill_request = request("x = §\n", candidates=6)
    assert not make_completer(model, Settings(model="tiny")).complete(infill_request).completions[0].shown
    relaxed = make_completer(model, Settings(model="tiny", min_confidence=0.0))
    assert relaxed.complete(infill_request).completions[0].shown


def test_typing_what_was_suggested_saves_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    completer = coder("x = (stop)[sum] - None\n")
    counted = count_passes(completer, monkeypatch)
    assert completer.complete(request("x =§\n")).completions[0].text == " (stop)[sum] - None"
    first = len(counted)
    counted.clear()
    assert completer.complete(request("x = (stop)§\n")).completions[0].text == "[sum] - None"
    assert len(counted) < first / 2


# several holes


def test_several_holes_are_filled_from_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    completer = coder("x = first\n")
    shown: list[str] = []
    fill = completer.family.fill

    def recording(context: Any, kind: Any) -> Any:
        shown.append(context.prefix)
        return fill(context, kind)

    monkeypatch.setattr(completer.family, "fill", recording)
    infill_request = request("a = §\nb = §\nc = §\n")
    result = completer.complete(infill_request)
    assert filled(infill_request, result) == "a = first\nb = first\nc = first\n"
    assert [one.hole for one in result.completions] == [*infill_request.holes]
    assert shown == ["a = ", "a = first\nb = ", "a = first\nb = first\nc = "]


def test_the_numbers_of_several_holes_are_sums() -> None:
    one, both = coder().complete(request("a = §\nb = \n")), coder().complete(request("a = §\nb = §\n"))
    assert both.steps > one.steps and both.hole == sum(each.candidates[0].tokens for each in both.completions)
    assert both.encoded_tokens > one.encoded_tokens


# steps, cancelling, deadlines


def test_steps_show_the_text_as_it_grows() -> None:
    views: list[StepView] = []
    result = coder("x = first + second\n").complete(request("x =§\ny\n"), views.append)
    texts = ["".join(piece.text for piece in view.pieces) for view in views]
    assert all(text.startswith("x =") and text.endswith("\ny\n") for text in texts)
    middles = [view.pieces[1].text for view in views[:-1]]
    assert all(later.startswith(sooner) for sooner, later in zip(middles, middles[1:], strict=False))
    assert len(views) > 3 and views[-1].pieces[1].text == result.completions[0].text == " first + second"
    assert [view.step for view in views[:-1]] == [*range(1, len(views))] and views[-1].step == result.steps


def test_a_callback_that_returns_false_ends_decoding_and_is_not_called_again() -> None:
    views: list[StepView] = []

    def stop_at_third(view: StepView) -> bool:
        views.append(view)
        return len(views) < 3

    script = "x = first + second * third - fourth\n"
    result = coder(script).complete(request("x =§\n"), stop_at_third)
    assert len(views) == 3 and result.steps == 3 and len(result.completions) == 1
    assert coder(script).complete(request("x =§\n")).steps > 4


def test_a_cancelled_request_ends_within_a_step() -> None:
    cancelled, views = threading.Event(), list[StepView]()
    completer = coder()

    def cancel(view: StepView) -> None:
        views.append(view)
        cancelled.set()

    with pytest.raises(Cancelled):
        completer.complete(request("x = §\n"), cancel, cancelled.is_set)
    assert len(views) == 1
    assert not any(entry.users for entry in completer.decoder.cache.entries)
    assert completer.complete(request("x = §\n")).completions == coder().complete(request("x = §\n")).completions


def test_a_request_that_is_cancelled_before_it_begins_makes_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    completer = coder()
    counted = count_passes(completer, monkeypatch)
    with pytest.raises(Cancelled):
        completer.complete(request("x = §\n"), stop=lambda: True)
    assert counted == []


def test_after_the_deadline_the_result_is_what_has_been_decoded() -> None:
    """Its confidence is no higher than the likelihood of its text allows."""
    result = coder().complete(request("def f():\n    §\n", "block", deadline_ms=1, language=None))
    assert result.steps <= 4
    (candidate,) = only(result)
    assert candidate.confidence < 0.5 and candidate.evidence.seam == candidate.evidence.middle < 0


# line ends


def test_a_file_with_crlf_gets_crlf() -> None:
    infill_request = request("x = 1\r\n§y\r\n", "block")
    result = coder("\ncall(one)\nlast").complete(infill_request)
    assert result.completions[0].text == "call(one)\r\nlast\r\n"
    assert filled(infill_request, result) == "x = 1\r\ncall(one)\r\nlast\r\ny\r\n"


def test_several_holes_in_a_file_with_crlf() -> None:
    infill_request = request("a = §\r\n§b\r\n", "one")
    result = coder("a = first\nsecond\n").complete(infill_request)
    assert [one.hole for one in result.completions] == [*infill_request.holes]
    assert "\r\r" not in filled(infill_request, result)
    assert result.completions[0].text == "first"
    assert all(text.endswith("\r\n") for text in (one.text for one in result.completions[1].candidates) if text)


# batches


def test_an_invalid_row_of_a_batch_has_its_error_as_result() -> None:
    rows = [request("x = §\n"), InfillRequest("x", (Hole(5, 9),)), InfillRequest("x", ()), request("y = §\n")]
    first, outside, without, last = coder("x = first\n").complete_batch(rows)
    assert isinstance(first, InfillResult) and isinstance(last, InfillResult)
    assert first.completions[0].text == last.completions[0].text == "first"
    assert isinstance(outside, InputError) and "lies outside the text" in str(outside)
    assert isinstance(without, InputError) and "has no hole" in str(without)


def test_an_empty_batch_has_no_results() -> None:
    assert coder().complete_batch([]) == []

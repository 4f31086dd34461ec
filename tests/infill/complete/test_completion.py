"""The pipeline of a request: checks, repair, candidates, steps, batches; with scripted models and random weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.canvas_run import DenoiseRequest
from engine.config import SamplingConfig
from engine.errors import Cancelled, GessoError, InputError, ModelError
from infill.cli.text_edits import apply
from infill.complete.completion import Completer
from infill.complete.judging import one_after_another
from infill.complete.loaded_model import LoadedModel
from infill.complete.prepared import prepare
from infill.request import Hole, HoleCompletion, InfillRequest, InfillResult, Lines, Neighbour, StepView
from infill.settings import Settings
from tests.infill.fakes import (
    POCKET,
    ScriptedDenoiser,
    load_completer,
    pocket,
    request,
    scripted_completer,
    tiny_completer,
)

FUNCTION = "def add(one, other):\n    total = one + other\n    return total\n\n\nprint(add(1, 2))\n"


# the next key


def test_the_next_key_starts_from_the_last_canvas() -> None:
    completer = scripted_completer("first + second", "irst + second", "first + second")
    assert isinstance(completer.denoiser, ScriptedDenoiser)
    for before in ("x = ", "x = f", "x = "):
        completion = completer.complete(request(f"{before}§\nrest\n")).completions[0]
        assert before + completion.text == "x = first + second"
    cold, typed, removed = completer.denoiser.requests
    assert not _drafted(completer, cold)
    assert _drafted(completer, typed).endswith("irst + second")
    assert _drafted(completer, removed).endswith("first + second")


def test_a_replaced_word_is_noise_in_the_next_canvas() -> None:
    completer = scripted_completer("first(second)", "only(second)")
    assert isinstance(completer.denoiser, ScriptedDenoiser)
    completer.complete(request("x = §\nrest\n"))
    completer.complete(request("x = o§\nrest\n"))
    warm = completer.denoiser.requests[-1]
    assert int(warm.canvas.tokens[warm.canvas.hole_columns][0]) == -1 and _drafted(completer, warm) == "second)"


@pytest.mark.parametrize(
    "second",
    [
        request("x = §\nrest\n"),
        request("x = f§\nrest\n", steps=3),
        request("x = f§\nother\n"),
        request("y = f§\nrest\n"),
        request("x = f§\nrest\n", lines="block"),
    ],
    ids=["the same", "steps", "after", "before", "block"],
)
def test_other_requests_start_from_noise(second: InfillRequest) -> None:
    completer = scripted_completer("first + second", "irst + second")
    assert isinstance(completer.denoiser, ScriptedDenoiser)
    completer.complete(request("x = §\nrest\n"))
    completer.complete(second)
    assert not _drafted(completer, completer.denoiser.requests[-1])


def _drafted(completer: Completer, request: DenoiseRequest) -> str:
    """The text in the holes of a canvas before its first step."""
    tokens = request.canvas.tokens[request.canvas.hole_columns].tolist()
    return completer.family.tokens.decode([token for token in tokens if token not in (-1, completer.family.null_token)])


# checks, repair, cutting back


def test_a_refused_completion_is_returned_with_the_reason() -> None:
    completion = scripted_completer("").complete(request("x = 1\n§\n")).completions[0]
    assert (completion.text, completion.shown, completion.reason) == ("", False, "the completion is empty")


def test_below_the_threshold_nothing_is_shown() -> None:
    completer = scripted_completer("2", confidence=0.3, min_confidence=0.5)
    completion = completer.complete(request("x = §\n")).completions[0]
    assert not completion.shown and "below the threshold 0.50" in (completion.reason or "")
    assert completion.confidence <= 0.3, "the denoiser's certainty times a likelihood"


def test_tokens_under_a_parse_error_are_renoised() -> None:
    completer = scripted_completer("total = (1 + )", "total = (1 + 2)")
    completion = completer.complete(request("x = 1\n§\ny = 2\n")).completions[0]
    assert (completion.text, completion.shown) == ("total = (1 + 2)", True)
    assert isinstance(completer.denoiser, ScriptedDenoiser)
    first, again = completer.denoiser.requests
    drafted = again.canvas.tokens[again.canvas.hole_columns]
    assert (drafted == -1).any() and (drafted >= 0).any()
    assert again.canvas.pinned.equal(first.canvas.pinned)
    assert again.sampling.max_steps <= 4


def test_a_text_that_still_breaks_the_parse_is_cut_back() -> None:
    completer = scripted_completer("    a = x\n    b = a + 1\n    return (b +")
    infill_request = request("def f(x):\n§\nz = 1\n", "block")
    completion = completer.complete(infill_request).completions[0]
    assert completion.shown and completion.reason is None
    assert completion.text == "    a = x\n    b = a + 1"


def test_a_whole_line_is_cut_back_to_a_whole_line() -> None:
    completion = (
        scripted_completer("    total = one )")
        .complete(request("def f(one):\n    x = one\n§    return total\n"))
        .completions[0]
    )
    assert completion.text == "    total = one\n"
    assert completion.shown


def test_a_text_that_cannot_be_repaired_is_not_shown() -> None:
    completion = scripted_completer(")))").complete(request("x = 1\n§\ny = 2\n")).completions[0]
    assert not completion.shown and completion.reason


# candidates


def test_candidates_are_distinct_and_best_first() -> None:
    completer = scripted_completer("2", "2", ")", "3")
    completion = completer.complete(request("x = §\n", candidates=4)).completions[0]
    texts = [one.text for one in completion.candidates]
    assert len(texts) == len(set(texts)) and set(texts) >= {"2", "3"}
    order = [(not one.shown, -one.confidence) for one in completion.candidates]
    assert order == sorted(order)
    best = completion.candidates[0]
    assert (completion.text, completion.shown, completion.confidence) == (best.text, True, best.confidence)


def test_other_candidates_are_sampled_with_other_seeds() -> None:
    completer = scripted_completer("2")
    completer.complete(request("x = §\n", candidates=3, seed=7))
    assert isinstance(completer.denoiser, ScriptedDenoiser)
    denoised = completer.denoiser.requests
    assert [one.seed for one in denoised] == [7, 8, 9]
    assert [one.sampling.token_choice for one in denoised] == ["argmax", "sample", "sample"]


def test_copies_from_the_context_are_candidates() -> None:
    text = "first = open(path).read().strip()\nsecond = open(path).§\n"
    completer = scripted_completer(")", copy_drafts=True)
    candidates = completer.complete(request(text)).completions[0].candidates
    copies = [one for one in candidates if one.source == "copy"]
    assert [one.text for one in copies] == ["read().strip()"]
    assert 0 < copies[0].confidence < 1 and copies[0].tokens > 0 and copies[0].shown
    assert candidates[0].source == "copy"


def test_copies_come_from_neighbours_and_are_whole_lines_in_such_a_hole() -> None:
    neighbour = Neighbour(
        "other.py", "    with open(path, 'rb') as file:\n        data = file.read()\n        use(data)\n"
    )
    for after, line in (("        use(data)\n", True), ("", True), ("\n        use(data)\n", False)):
        text = f"def f(path):\n    with open(path, 'rb') as file:\n§{after}"
        completer = scripted_completer("", copy_drafts=True)
        result = completer.complete(request(text, "one", neighbours=(neighbour,)))
        copies = [one.text for one in result.completions[0].candidates if one.source == "copy"]
        assert copies == ["        data = file.read()" + "\n" * line]


# steps, time, seeds


def test_the_callback_gets_the_canvas_after_every_step_and_can_stop() -> None:
    completer = tiny_completer(SamplingConfig(max_steps=9))
    views: list[StepView] = []

    def watch(view: StepView) -> bool | None:
        views.append(view)
        return False if len(views) == 2 else None

    result = completer.complete(request("def add(one, other):\n    return §\n"), watch)
    assert [(view.step, view.max_steps) for view in views] == [(1, 9), (2, 9)]
    known = "".join(piece.text for piece in views[0].pieces if piece.state == "known")
    assert known.startswith("def add(one, other):\n    ") and known.endswith("\n")
    assert result.steps == 2 and len(result.completions) == 1
    assert all(one.source == "model" for one in result.completions[0].candidates)


def test_stopping_applies_to_all_holes() -> None:
    middle = "".join(f"value_{number} = {number}\n" for number in range(60))
    views: list[StepView] = []

    def stop_once(view: StepView) -> bool | None:
        views.append(view)
        return False if len(views) == 1 else None

    result = tiny_completer(SamplingConfig(max_steps=9)).complete(request(f"a = §\n{middle}b = §\n"), stop_once)
    assert len(views) == 1 and result.steps == 2 and len(result.completions) == 2


def test_the_best_so_far_is_returned_at_the_deadline() -> None:
    completer = tiny_completer(SamplingConfig(max_steps=10_000, confidence_threshold=0.0), copy_drafts=False)
    result = completer.complete(request("x = §\n", deadline_ms=60.0))
    assert 1 <= result.steps < 10_000 and len(result.completions) == 1
    assert completer.complete(request("x = §\n", deadline_ms=0.0)).steps == 1


def test_the_number_of_steps_is_the_requested_one() -> None:
    completer = tiny_completer(SamplingConfig(max_steps=9, confidence_threshold=0.0), copy_drafts=False)
    result = completer.complete(request("x = 1\n§\n", steps=2, deadline_ms=1.0))
    assert result.steps <= 2


def test_a_seed_determines_the_result() -> None:
    sampling = SamplingConfig(max_steps=4, t_min=1.0, t_max=1.0)
    infill_request = request(FUNCTION.replace("return total", "§"), seed=3)
    one, two = (tiny_completer(sampling).complete(infill_request).completions for _ in range(2))
    other = tiny_completer(sampling).complete(replace(infill_request, seed=4)).completions
    assert one == two != other


def test_the_result_reports_model_seed_and_timings() -> None:
    completer = tiny_completer(model="tiny")
    result = completer.complete(request("x = §\n", seed=5))
    assert (result.model, result.seed) == ("tiny", 5)
    assert set(result.timings_ms) == {"context", "encode", "denoise", "checks", "total"}
    stages = sum(time for stage, time in result.timings_ms.items() if stage != "total")
    assert 0 < stages <= result.timings_ms["total"] * 1.01
    assert 0 < result.encoded_tokens <= result.prompt_tokens


def test_after_reading_ahead_the_prompt_is_cached() -> None:
    completer, infill_request = tiny_completer(), request(FUNCTION * 20 + "x = §\n")
    read = completer.read_ahead(infill_request)
    result = completer.complete(infill_request)
    assert read == result.prompt_tokens > 100 and result.encoded_tokens == 0


# cancelled


@pytest.mark.parametrize(
    "infill_request",
    [
        request("def add(one, other):\n    total = add(one, other)\n    return add(one§\n", "one"),
        request("a = §\nb = §\n"),
        request("a = §\n" + "".join(f"value_{number} = {number}\n" for number in range(60)) + "b = §\n"),
        request("def f(x):\n§", "block", candidates=2),
    ],
)
def test_a_request_can_be_cancelled_at_every_check(infill_request: InfillRequest) -> None:
    """At each call of `stop` in turn, the first and the last included; later requests are not affected."""
    sampling = SamplingConfig(max_steps=3, confidence_threshold=0.0)
    expected = tiny_completer(sampling).complete(infill_request)
    calls = [0]

    def count() -> bool:
        calls[0] += 1
        return False

    completer = tiny_completer(sampling)
    assert completer.complete(infill_request, stop=count).completions == expected.completions
    total = calls[0]
    assert total > 10
    for last in sorted({*range(1, total + 1, 3), total}):
        completer, calls[0] = tiny_completer(sampling), 0
        with pytest.raises(Cancelled):
            completer.complete(infill_request, stop=lambda last=last: count() or calls[0] == last)  # type: ignore[misc]
        assert calls[0] == last, "stop is not called again"
        for entry in completer.denoiser.cache.entries:
            assert entry.users == 0 and entry.kv.length == len(entry.tokens)
    again = completer.complete(infill_request)
    assert [one.text for one in again.completions] == [one.text for one in expected.completions]


def test_a_request_can_be_cancelled_between_any_two_passes_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """`stop` is called before each pass: encoding, denoising, drafting, scoring."""
    completer = tiny_completer(SamplingConfig(max_steps=3, confidence_threshold=0.0))
    events: list[str] = []
    model = completer.denoiser.model
    for name in ("encode", "denoise"):
        run = getattr(model, name)
        monkeypatch.setattr(model, name, lambda *args, name=name, run=run: events.append(name) or run(*args))
    infill_request = request("def add(one, other):\n    total = add(one, other)\n    return add(one§\n", "one")
    completer.complete(infill_request, stop=lambda: bool(events.append("stop")))
    assert events.count("denoise") >= 3 and events.count("encode") > 10
    assert all(before == "stop" for before, event in zip(events, events[1:], strict=False) if event != "stop")


# what the user refused


def test_the_next_best_replaces_a_rejected_text() -> None:
    text = "first = open(path).read().strip()\nsecond = open(path).§\n"
    completer = scripted_completer("name()", copy_drafts=True)
    first, second = completer.complete(request(text)).completions[0].candidates
    assert first.shown and second.shown
    refused = completer.complete(request(text, rejected=(f" {first.text}\n",))).completions[0]
    assert (refused.text, refused.shown) == (second.text, True)
    assert [(one.text, one.reason) for one in refused.candidates if not one.shown] == [
        (first.text, "you rejected the same text here before")
    ]
    none = completer.complete(request(text, rejected=(first.text, second.text))).completions[0]
    assert not none.shown and "rejected" in (none.reason or "")


def test_rejections_reach_holes_with_canvases_of_their_own() -> None:
    """Each of several holes has its own canvas."""
    middle = "".join(f"value_{number} = {number}\n" for number in range(60))
    result = scripted_completer("2", "3").complete(request(f"a = §\n{middle}b = §\n", rejected=("3",)))
    assert [(one.text, one.shown) for one in result.completions] == [("2", True), ("3", False)]


# batches


def batch_requests() -> list[InfillRequest]:
    texts = ["x = §\n", FUNCTION.replace("return total", "§"), "§", "def f(x):\n    ret§\n", "a = §\nb = §\n"]
    return [request(text, "one", seed=number) for number, text in enumerate(texts)]


def test_a_batch_gives_the_results_of_single_requests() -> None:
    requests = batch_requests()
    together = tiny_completer().complete_batch(requests)
    alone = [tiny_completer().complete(one) for one in requests]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, InfillResult)
        assert [c.text for c in one.completions] == [c.text for c in other.completions]
        assert [c.confidence for c in one.completions] == pytest.approx(
            [c.confidence for c in other.completions], abs=1e-3
        )
        assert (one.steps, one.canvas, one.hole) == (other.steps, other.canvas, other.hole)


def test_the_result_of_an_invalid_request_is_its_error() -> None:
    good = request("x = §\n")
    bad = [replace(good, holes=()), replace(good, holes=(Hole(5, 99),)), replace(good, steps=0)]
    results = scripted_completer("1").complete_batch([bad[0], good, bad[1], bad[2], good])
    assert [isinstance(one, GessoError) for one in results] == [True, False, True, True, False]
    assert isinstance(results[4], InfillResult) and results[4].completions[0].text == "1"


def test_each_request_of_a_batch_has_its_own_candidates() -> None:
    requests = [request("x = §\n", candidates=2), request("y = §\n"), request("z = §\n", candidates=2)]
    results = scripted_completer("1", "2", "3", "4", "5").complete_batch(requests)
    texts = [
        {one.text for one in result.completions[0].candidates} for result in results if isinstance(result, InfillResult)
    ]
    assert texts == [{"1", "2"}, {"3"}, {"4", "5"}]


def test_a_batch_may_be_empty_or_invalid() -> None:
    assert scripted_completer("1").complete_batch([]) == []
    (error,) = scripted_completer("1").complete_batch([InfillRequest("x", ())])
    assert isinstance(error, InputError)


# whatever comes


PIECES = st.sampled_from(
    ["x", "é", "日", "😀", "\ud800", "\n", "\r\n", "\r", "\t", "    ", "(", "]", '"', "<|null|>", "def f():"]
)
TEXTS = st.lists(PIECES, max_size=30).map("".join)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    text=TEXTS,
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=4),
    language=st.sampled_from([None, "python", "rust"]),
    lines=st.sampled_from(["one", "auto"]),
)
def test_text_before_and_after_the_holes_never_changes(
    text: str, shares: list[float], language: str | None, lines: Lines
) -> None:
    offsets = sorted(round(share * len(text)) for share in shares)
    holes = tuple(Hole(start, end) for start, end in zip(offsets[::2], offsets[1::2], strict=False))
    infill_request = InfillRequest(text, holes, language, lines=lines)
    completer = tiny_completer(SamplingConfig(max_steps=1, entropy_bound=20.0))
    result = completer.complete(infill_request)
    assert len(result.completions) == len(holes)
    for hole, completion in zip(holes, result.completions, strict=True):
        assert hole.start - 1 <= completion.hole.start <= hole.start
        assert hole.end - 1 <= completion.hole.end <= hole.end
        whole = apply(text, [(completion.hole, completion.text)])
        assert whole.startswith(text[: completion.hole.start]) and whole.endswith(text[completion.hole.end :])
        assert "\ufffd" not in completion.text and 0 <= completion.confidence <= 1


# loading


def test_the_shipped_model_fills_a_hole() -> None:
    completer = load_completer(threads=1, min_confidence=0.0)
    result = completer.complete(request("def add(one, other):\n    return §\n", steps=1))
    assert result.model == "pocket" and result.prompt_tokens > 0


def test_a_model_of_an_unknown_family_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(POCKET, folder)
    config = json.loads((folder / "config.json").read_text())
    config["gesso"]["family"] = "third"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="'third'"):
        LoadedModel.load(Settings(model=str(folder), threads=1))


def test_holes_that_the_deadline_leaves_no_time_for_cost_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with fifty holes in a long file."""
    wanted = request("a = §\n", deadline_ms=1000)
    wanted = replace(wanted, text="a = \n" * 50, holes=tuple(Hole(5 * n + 4, 5 * n + 4) for n in range(50)))
    prepared = prepare(wanted, pocket().budget)
    completed = []

    def complete(one: InfillRequest, *_: object) -> InfillResult:
        completed.append(one)
        prepared.deadline = 0.0
        done = HoleCompletion(one.holes[0], "1", True, None, 1.0, ())
        return InfillResult((done,), 1, 1, 1, 1, 1, {"total": 1.0}, "model", 0)

    result = one_after_another(complete, prepared, None, None, 0.0)
    assert len(completed) == 1 and len(result.completions) == 50
    assert [one.hole for one in result.completions] == [*wanted.holes]
    assert result.completions[0].shown and not any(one.shown for one in result.completions[1:])
    assert "no time" in (result.completions[-1].reason or "")

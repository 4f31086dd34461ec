"""The baselines: given lengths, causal decoding, copies, and where a text ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from bench.quality import baselines as quality_baselines
from bench.quality.baselines import (
    FIXED_SLOTS,
    Attempt,
    Causal,
    Copy,
    FixedLength,
    Pipeline,
    Question,
    TrueLength,
    after_longest_match,
    completed,
)
from engine.denoiser import DenoiseRequest, DenoiseResult
from engine.errors import GessoError, InputError
from infill.complete.completion import Completer
from infill.request import Candidate, Hole, HoleCompletion, InfillRequest, InfillResult, Neighbour
from train.held_out import KINDS, HeldOutHole

FUNCTION = "def area(self):\n    square = self.radius * self.radius\n    return math.pi * «square»\n\n\nprint(area)\n"


def hole(marked: str, kind: str = "rest of line", language: str = "python") -> HeldOutHole:
    """The truth is inside «»."""
    before, rest = marked.split("«")
    truth, after = rest.split("»")
    return HeldOutHole(language, kind, "p", "p.py", before, truth, after)


# where a text ends


@pytest.mark.parametrize(
    "kind, after, text, whole",
    [
        ("rest of line", "\nnext\n", "one + two", None),
        ("rest of line", "\nnext\n", "one + two\nthree", "one + two"),
        ("rest of line", "\nnext\n", "\n", ""),
        ("line", "\nnext\n", "\n    one\n", "\n    one"),
        ("line", "\nnext\n", "\n    ", None),
        ("token span", ", two)\n", "one", None),
        ("token span", ", two)\n", "one, two)", "one"),
        ("token span", ")\n", "f(one", None),
        ("token span", ")\n", "f(one)", None),
        ("token span", ")\n", "f(one))", "f(one)"),
        ("token span", "\nnext\n", "one\n", "one"),
    ],
)
def test_within_a_line(kind: str, after: str, text: str, whole: str | None) -> None:
    assert completed(text, HeldOutHole("python", kind, "p", "p", "x = (", "truth", after)) == whole


@pytest.mark.parametrize(
    "kind, text, whole",
    [
        ("block", "        a = 1\n        if a:\n            b()\n", None),
        ("block", "        a = 1\n        b()\n    r", "        a = 1\n        b()"),
        ("block", "        a = 1\n\n    ", None),
        ("block", "        a = 1\n    return later", "        a = 1"),
        ("block", "        a = 1\n        return later\n", None),
        ("block", "    return later\n", ""),
        ("block", "\n        a = 1\n    b", "\n        a = 1"),
        ("statement", "        a = call(\n            1,\n        )", None),
        (
            "statement",
            "        a = call(\n            1,\n        )\n        b",
            "        a = call(\n            1,\n        )",
        ),
        ("statement", "        a = 1\n        b", "        a = 1"),
    ],
)
def test_over_several_lines(kind: str, text: str, whole: str | None) -> None:
    assert completed(text, HeldOutHole("python", kind, "p", "p", "if x:\n", "truth", "\n\n    return later\n")) == whole


# copies


@pytest.mark.parametrize(
    "marked, neighbours, text",
    [
        ("open(path).read()\nclose(a)\nopen(path).«»\nx = 1\n", [], "read()\nclose(a)\nopen(path)."),
        ("get(one)\nset(two)\nget(two)\nset(«»\n", [], "two)\nget(two)\nset("),
        ("get(one)\nget(two)\nget(«»\n", [], "two)\nget("),
        ("alpha = «»\nalpha = beta\n", [], "beta\n"),
        ("k alpha = «»\nalpha = beta\n", ["k alpha = gamma\n", "k alpha = delta\n"], "gamma\n"),
        ("x«»", [], ""),
        ("«»", ["a"], ""),
    ],
    ids=["above", "longer before nearer", "nearest above", "below", "first neighbour", "nowhere", "no text"],
)
def test_copies_follow_the_longest_match(marked: str, neighbours: list[str], text: str) -> None:
    assert after_longest_match(hole(marked), neighbours) == text


@pytest.mark.parametrize(
    "kind, truth, text",
    [
        ("line", "    y = 1", "    b = 1"),
        ("statement", "    y = call(\n        1)", "    b = 1\n    c = 2"),
        ("block", "    y = 1\n    z = 2\n    return y", "    b = 1\n    c = 2\n    return b"),
    ],
)
def test_a_copy_has_as_many_lines_as_the_truth(kind: str, truth: str, text: str) -> None:
    target = hole(f"def f():\n«{truth}»\n\nf()\n", kind)
    neighbour = Neighbour("n.py", "x\ndef f():\n    b = 1\n    c = 2\n    return b\n")
    with_it, without = Copy(True).fill([Question.of(target, (neighbour,)), Question.of(target)])
    assert (with_it.text, with_it.shown, with_it.source) == (text, True, "copy")
    assert without.text != text


def test_nothing_to_copy_is_not_shown() -> None:
    answer = Copy(False).fill([Question.of(hole("x«y»\n"))])[0]
    assert (answer.text, answer.shown, answer.reason) == ("", False, "nothing was written")


# lengths


class Spy:
    """Keeps the requests and results of a completer's canvases."""

    def __init__(self, completer: Completer) -> None:
        self.requests: list[DenoiseRequest] = []
        self.results: list[DenoiseResult] = []
        self.run = completer.runner.run
        completer.runner.run = self  # type: ignore[method-assign, assignment]

    def __call__(self, requests: Sequence[DenoiseRequest], on_step: object = None) -> list[DenoiseResult]:
        results = self.run(requests)
        self.requests += requests
        self.results += results
        return results


def test_true_length_has_one_slot_per_missing_token(completer: Completer) -> None:
    method, spy = TrueLength(completer, neighbours=False), Spy(completer)
    word = hole(FUNCTION)
    lines = hole("def f(x):\n«    if x:\n        return call(x)\n    return None»\n\n\nprint(f)\n", "block")
    attempts = method.fill([Question.of(word), Question.of(lines)])
    encode = completer.family.tokens.encode
    for request, result, target in zip(spy.requests, spy.results, (word, lines), strict=False):
        columns = request.canvas.hole_columns.tolist()
        known = completer.family.tokens.decode(request.canvas.tokens[: columns[0]].tolist())
        typed = target.before[target.before.rindex(known) + len(known) :]
        assert len(columns) == len(encode(typed + target.truth))
        assert completer.family.null_token not in result.tokens.tolist()
    assert all(isinstance(attempt, Attempt) and attempt.source == "model" for attempt in attempts)


def test_fixed_length_is_the_same_for_every_hole(completer: Completer) -> None:
    method, spy = FixedLength(completer, neighbours=False), Spy(completer)
    method.fill([Question.of(hole(FUNCTION)), Question.of(hole("x = «1»\n"))])
    assert [len(request.canvas.hole_columns) for request in spy.requests[:2]] == [FIXED_SLOTS] * 2
    assert all(completer.family.null_token not in result.tokens.tolist() for result in spy.results[:2])
    assert set(method.kinds) == {"token span", "rest of line", "line"}


# causal


def writes(text: str, seen: dict[str, object]) -> Callable[..., tuple[list[int], list[float]]]:
    """A fake decoder that writes `text` after the typed prefix until it is told to stop."""

    def decode(model, cache, prompt, limit, stop, banned=None, first=None):  # type: ignore[no-untyped-def]
        encode = seen["encode"]
        tokens: list[int] = []
        for token in encode(seen["typed"] + text)[:limit]:  # type: ignore[operator]
            tokens.append(token)
            if stop(tokens):
                break
        seen.update(prompt=prompt, tokens=len(tokens), banned=banned.tolist(), first=first.tolist())
        return tokens, [-1.0] * len(tokens)

    return decode


def test_causal_decoding_stops_at_the_end(completer: Completer, monkeypatch: pytest.MonkeyPatch) -> None:
    target, tokens = hole(FUNCTION), completer.family.tokens
    seen: dict[str, object] = {"encode": tokens.encode, "typed": " "}
    monkeypatch.setattr(quality_baselines, "decode_greedily", writes("cube\n\n\nmore and more and more\n", seen))
    answer = Causal(completer, neighbours=False).fill([Question.of(target)])[0]
    assert (answer.text, answer.shown, answer.source) == ("cube", True, "causal")
    assert answer.steps == seen["tokens"] == len(tokens.encode(" cube\n"))
    assert answer.confidence == pytest.approx(0.3679, abs=1e-3)
    assert answer.best_passing == (answer.confidence, "cube")
    read = tokens.decode(seen["prompt"])  # type: ignore[arg-type]
    assert read.endswith(target.before.rstrip(" ")) and target.after.strip() in read
    assert read.index("print(area)") < read.index("def area"), "the suffix first"
    banned, first = seen["banned"], seen["first"]
    assert isinstance(banned, list) and isinstance(first, list)
    assert completer.family.null_token in banned
    assert not {*tokens.line_breaks} & {*banned}, "a line must be able to end"
    assert all(tokens.bytes_of[token].startswith(b" ") for token in first), "tokens start as the typed prefix"


@pytest.mark.parametrize("kind", KINDS)
def test_causal_decoding_with_the_shipped_model(
    completer: Completer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(quality_baselines, "CAUSAL_LIMIT", 12)
    marked = {"token span": "    return math.pi * «square» + 1\n"}.get(kind, "«    return math.pi»\n")
    if kind == "rest of line":
        marked = "    return «math.pi»\n"
    target = hole(f"def area(self):\n    square = self.radius * self.radius\n{marked}\n\nprint(area)\n", kind)
    one, again = Causal(completer, neighbours=False).fill([Question.of(target)] * 2)
    assert (one.text, one.confidence) == (again.text, again.confidence)
    assert 0 < one.steps <= 12 and one.confidence is not None and 0 < one.confidence <= 1
    assert not target.one_line or "\n" not in one.text.strip()


def test_the_causal_baseline_needs_an_encoder_trained_for_it(
    completer: Completer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completer.family, "causal_prompt", lambda context, kind: None)
    with pytest.raises(InputError, match="leave out --baseline causal"):
        Causal(completer, neighbours=False).fill([Question.of(hole(FUNCTION))])


# the pipeline


class FixedCompleter:
    """Replaces a completer and always gives the same result."""

    def __init__(self, completer: Completer, result: InfillResult | GessoError) -> None:
        self.model, self.result = completer.model, result

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]:
        return [self.result] * len(requests)


def result(*candidates: Candidate) -> InfillResult:
    best = candidates[0]
    filled = HoleCompletion(Hole(0, 0), best.text, best.shown, best.reason, best.confidence, candidates)
    return InfillResult((filled,), 5, 1, 1, 1, 1, {"total": 1.0}, "pocket", 0)


def test_the_best_candidate_below_the_threshold_is_kept(completer: Completer) -> None:
    target = hole("x = «1»\ny = 2\n")
    broken = Candidate("(1", 0.9, False, "the code would no longer parse", "model", 2)
    unsure = Candidate("3", 0.05, False, "the confidence 0.05 is below the threshold 0.15", "copy", 1)
    fake = FixedCompleter(completer, result(broken, unsure))
    answer = Pipeline("pipeline", fake).fill([Question.of(target)])[0]  # type: ignore[arg-type]
    assert (answer.text, answer.shown, answer.confidence, answer.source, answer.steps) == ("(1", False, 0.9, "model", 5)
    assert answer.best_passing == (0.05, "3")
    fake.result = result(broken)
    assert Pipeline("pipeline", fake).fill([Question.of(target)])[0].best_passing is None  # type: ignore[arg-type]


def test_an_error_is_an_attempt_that_is_not_shown(completer: Completer) -> None:
    fake = FixedCompleter(completer, InputError("Too long."))
    answer = Pipeline("pipeline", fake).fill([Question.of(hole("x = «1»\n"))])[0]  # type: ignore[arg-type]
    assert (answer.text, answer.shown, answer.reason, answer.confidence) == ("", False, "Too long.", None)


def test_a_question_requests_one_line_or_a_block() -> None:
    neighbour = Neighbour("n.py", "n = 1\n")
    one = Question.of(hole("x = «1»\n"), (neighbour,)).request
    several = Question.of(hole("«x = 1»\n", "statement")).request
    assert (one.text, one.holes, one.lines, one.neighbours) == ("x = \n", (Hole(4, 4),), "one", (neighbour,))
    assert (several.text, several.lines, several.neighbours) == ("\n", "block", ())

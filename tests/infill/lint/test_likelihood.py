"""Likelihoods with and without an edit, against reading both texts from the front."""

import pytest

from engine.scorer import causal_log_probabilities
from infill.complete.completion import Completer
from infill.findings import LintRequest
from infill.lint.hidden import Hidden
from infill.lint.kinds import Edit
from infill.lint.likelihood import STRETCH, Likelihood, stretches
from tests.infill.fakes import tiny_completer

TEXT = "def f(a, b):\n    c = a + b\n    d = c * a\n    return d\n"


def edit(old: str, new: str, text: str = TEXT) -> Edit:
    start = text.index(old)
    return Edit(start, start + len(old), new, "wrong-name")


@pytest.mark.parametrize(
    ("old", "new"), [("a + b", "b + a"), ("c * a", "d"), ("return d", "return a"), ("c = a", "c = a2")]
)
def test_gains_are_differences_of_likelihoods(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.lint.likelihood.FIRST_LOOK", -99.0)
    completer = tiny_completer()
    likelihood = Likelihood(completer.denoiser, completer.family)
    request, changed = LintRequest(TEXT, "python"), edit(old, new)
    gain = likelihood.gains(request, (0, len(TEXT)), [changed])[changed]
    prompt = likelihood._prompt(request, (0, len(TEXT)))
    assert prompt is not None
    texts = [TEXT.rstrip("\n"), (TEXT[: changed.start] + new + TEXT[changed.end :]).rstrip("\n")]
    tokens = [completer.family.tokens.encode(prompt.typed + text) for text in texts]
    was, now = causal_log_probabilities(
        completer.denoiser.model, completer.denoiser.cache, prompt.tokens[:-1], prompt.tokens[-1:], tokens
    )
    assert gain.whole == pytest.approx(float(now.sum() - was.sum()), abs=1e-2)
    assert gain.longer == len(tokens[1]) - len(tokens[0])


def test_unlikely_first_tokens_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    completer = tiny_completer()
    likelihood, changed = Likelihood(completer.denoiser, completer.family), edit("a + b", "b + a")
    monkeypatch.setattr("infill.lint.likelihood.FIRST_LOOK", 99.0)
    assert likelihood.gains(LintRequest(TEXT, "python"), (0, len(TEXT)), [changed]) == {}


def test_stretches_cover_the_ranges_in_whole_lines() -> None:
    lines = [f"def f{number}(a):\n    x = a + {number}\n    return x\n\n" for number in range(60)]
    text = "".join(lines)
    parts = stretches(text, [(0, len(text))])
    assert parts[0][0] == 0 and parts[-1][1] == len(text)
    assert all(end == start for (_, end), (start, _) in zip(parts, parts[1:], strict=False))
    assert all(end - start <= STRETCH for start, end in parts)
    assert all(text[start:].startswith("def f") for start, _ in parts)


def test_a_range_within_a_line_is_the_line() -> None:
    start = TEXT.index("c * a")
    (part,) = stretches(TEXT, [(start, start + 1)])
    assert TEXT[part[0] : part[1]] == "    d = c * a\n"


def test_a_long_line_is_a_stretch_of_its_own() -> None:
    text = "x = 1\n" + "y = " + "1 + " * STRETCH + "1\nz = 2\n"
    parts = stretches(text, [(0, len(text))])
    assert "".join(text[start:end] for start, end in parts) == text
    assert all(text[end - 1] == "\n" for _, end in parts)


def test_the_hidden_place_does_not_see_what_stood_there() -> None:
    completer: Completer = tiny_completer()
    hidden = Hidden(completer.denoiser, completer.family, completer.model.sampling)
    there, back = edit("a + b", "b + a"), edit("b + a", "a + b", TEXT.replace("a + b", "b + a"))
    (gain,) = hidden.gains(LintRequest(TEXT, "python"), [there])
    (loss,) = hidden.gains(LintRequest(TEXT.replace("a + b", "b + a"), "python"), [back])
    assert gain == pytest.approx(-loss, abs=1e-3) and gain != 0


def test_hidden_places_are_judged_alike_alone_and_in_a_batch() -> None:
    completer: Completer = tiny_completer()
    hidden = Hidden(completer.denoiser, completer.family, completer.model.sampling)
    edits = [edit("a + b", "b + a"), edit("return d", "return c"), edit("c * a", "a\n* c")]
    together = hidden.gains(LintRequest(TEXT, "python"), edits)
    alone = [hidden.gains(LintRequest(TEXT, "python"), [one])[0] for one in edits]
    assert together[2] == 0.0
    assert together == pytest.approx(alone, abs=1e-3)

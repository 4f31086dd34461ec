"""Gains of edits, compared with scoring both texts in full."""

import pytest

from engine.scorer import causal_log_probabilities
from infill.complete.completion import Completer
from infill.findings import LintRequest
from infill.lint.kinds import Edit
from infill.lint.likelihood import CHUNK, Likelihood, chunks
from infill.lint.masked import MaskedLikelihood
from tests.infill.fakes import tiny_completer

TEXT = "def f(a, b):\n    c = a + b\n    d = c * a\n    return d\n"


def edit(old: str, new: str, text: str = TEXT) -> Edit:
    start = text.index(old)
    return Edit(start, start + len(old), new, "wrong-name")


@pytest.mark.parametrize(
    ("old", "new"), [("a + b", "b + a"), ("c * a", "d"), ("return d", "return a"), ("c = a", "c = a2")]
)
def test_gains_are_differences_of_likelihoods(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.lint.likelihood.MIN_FIRST_GAIN", -99.0)
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
    assert gain.total == pytest.approx(float(now.sum() - was.sum()), abs=1e-2)
    assert gain.extra_tokens == len(tokens[1]) - len(tokens[0])


def test_edits_with_unlikely_first_tokens_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    completer = tiny_completer()
    likelihood, changed = Likelihood(completer.denoiser, completer.family), edit("a + b", "b + a")
    monkeypatch.setattr("infill.lint.likelihood.MIN_FIRST_GAIN", 99.0)
    assert likelihood.gains(LintRequest(TEXT, "python"), (0, len(TEXT)), [changed]) == {}


def test_chunks_cover_the_ranges_in_complete_lines() -> None:
    lines = [f"def f{number}(a):\n    x = a + {number}\n    return x\n\n" for number in range(60)]
    text = "".join(lines)
    parts = chunks(text, [(0, len(text))])
    assert parts[0][0] == 0 and parts[-1][1] == len(text)
    assert all(end == start for (_, end), (start, _) in zip(parts, parts[1:], strict=False))
    assert all(end - start <= CHUNK for start, end in parts)
    assert all(text[start:].startswith("def f") for start, _ in parts)


def test_a_range_within_a_line_becomes_the_line() -> None:
    start = TEXT.index("c * a")
    (part,) = chunks(TEXT, [(start, start + 1)])
    assert TEXT[part[0] : part[1]] == "    d = c * a\n"


def test_a_long_line_is_a_chunk() -> None:
    text = "x = 1\n" + "y = " + "1 + " * CHUNK + "1\nz = 2\n"
    parts = chunks(text, [(0, len(text))])
    assert "".join(text[start:end] for start, end in parts) == text
    assert all(text[end - 1] == "\n" for _, end in parts)


def test_the_masked_original_is_invisible() -> None:
    completer: Completer = tiny_completer()
    masked = MaskedLikelihood(completer.denoiser, completer.family, completer.model.sampling)
    forward, back = edit("a + b", "b + a"), edit("b + a", "a + b", TEXT.replace("a + b", "b + a"))
    (gain,) = masked.gains(LintRequest(TEXT, "python"), [forward])
    (loss,) = masked.gains(LintRequest(TEXT.replace("a + b", "b + a"), "python"), [back])
    assert gain == pytest.approx(-loss, abs=1e-3) and gain != 0


def test_masked_gains_are_the_same_alone_and_in_a_batch() -> None:
    completer: Completer = tiny_completer()
    masked = MaskedLikelihood(completer.denoiser, completer.family, completer.model.sampling)
    edits = [edit("a + b", "b + a"), edit("return d", "return c"), edit("c * a", "a\n* c")]
    together = masked.gains(LintRequest(TEXT, "python"), edits)
    alone = [masked.gains(LintRequest(TEXT, "python"), [one])[0] for one in edits]
    assert together[2] == 0.0
    assert together == pytest.approx(alone, abs=1e-3)

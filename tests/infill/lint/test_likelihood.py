"""Gains of edits by both judges; those of the causal one are compared with scoring both texts in full."""

import math
import re

import pytest

from engine.scorer import causal_log_probabilities
from infill.complete.completion import Completer
from infill.findings import LintRequest
from infill.lint.judge import Gain, ranked
from infill.lint.kinds import Edit
from infill.lint.likelihood import ABOVE, HEAD, SECTION, CausalJudge, context_above, sections
from infill.lint.masked import BATCH, DenoiserJudge
from tests.infill.fakes import tiny_completer
from tests.infill.tiny_coder import coder

TEXT = "def f(a, b):\n    c = a + b\n    d = c * a\n    return d\n"
REQUEST = LintRequest(TEXT, "python")


def edit(old: str, new: str, text: str = TEXT) -> Edit:
    start = text.index(old)
    return Edit(start, start + len(old), new, "wrong-name")


def judge() -> CausalJudge:
    one = coder()
    return CausalJudge(one.decoder, one.family.tokens, one.family.separator)


@pytest.fixture(autouse=True)
def read_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.lint.likelihood.MIN_FIRST_GAIN", -1e9)


@pytest.mark.parametrize(
    ("old", "new"), [("a + b", "b + a"), ("c * a", "d"), ("return d", "return a"), ("c = a", "c = a2")]
)
def test_gains_are_differences_of_likelihoods(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.lint.likelihood.TAIL", 99)
    one, changed = judge(), edit(old, new)
    gain = one.gains(REQUEST, [(0, len(TEXT))], [changed])[changed]
    known = one._known(REQUEST, 0)
    texts = TEXT, TEXT[: changed.start] + new + TEXT[changed.end :]
    tokens = [[token for line in text.splitlines(True) for token in one.tokens.encode(line)] for text in texts]
    decoder = one.decoder
    was, now = causal_log_probabilities(decoder.model, decoder.cache, known[:-1], known[-1:], tokens)  # type: ignore[arg-type]
    assert gain.total == pytest.approx(float(now.sum() - was.sum()), abs=1e-2)
    assert gain.extra_tokens == len(tokens[1]) - len(tokens[0])
    first = next(i for i, (a, b) in enumerate(zip(*tokens, strict=False)) if a != b)
    assert gain.first_gain == pytest.approx(float(now[first] - was[first]), abs=1e-2)


def test_many_edits_are_read_like_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.lint.likelihood.EDITS_PER_LINE", 9)
    edits = [edit("a + b", "b + a"), edit("c * a", "d"), edit("c * a", "c"), edit("return d", "return c")]
    together = judge().gains(REQUEST, [(0, len(TEXT))], edits)
    alone = [judge().gains(REQUEST, [(0, len(TEXT))], [one])[one].total for one in edits]
    assert [together[one].total for one in edits] == pytest.approx(alone, abs=1e-3)


def test_edits_with_unlikely_first_tokens_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.lint.likelihood.MIN_FIRST_GAIN", 99.0)
    assert judge().gains(REQUEST, [(0, len(TEXT))], [edit("a + b", "b + a")]) == {}


def test_edits_that_cannot_gain_enough_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.lint.likelihood.EDITS_PER_LINE", 9)
    changes = ("a + b", "b + a"), ("c * a", "d"), ("return d", "return a"), ("c = a", "c = a2"), (" * a\n", "\n")
    edits, most = [edit(old, new) for old, new in changes], dict[Edit, Gain]()

    def is_possible(one: Edit, gain: Gain) -> bool:
        most[one] = gain
        return one in edits[:2]

    full = judge().gains(REQUEST, [(0, len(TEXT))], edits)
    for one, gain in full.items():
        bound = (
            judge().gains(REQUEST, [(0, len(TEXT))], [one], lambda one, gain: not most.update({one: gain}))
            and most[one]
        )
        assert isinstance(bound, Gain)
        assert bound.edit_gain >= gain.edit_gain - 1e-3 and bound.suffix_gain >= gain.suffix_gain - 1e-3
        assert bound.margin >= gain.margin - 1e-3 and bound.rank >= gain.rank - 1e-3
        assert bound.first_gain == pytest.approx(gain.first_gain, abs=1e-3)
        assert bound.surprisal == pytest.approx(gain.surprisal, abs=1e-3)
    one = judge()
    found = one.gains(REQUEST, [(0, len(TEXT))], edits, is_possible)
    assert {*found} == {*edits[:2]} and {*most} == {*edits} == {*full}


def test_the_memory_of_the_prompt_is_left_as_it_was() -> None:
    one = judge()
    one.gains(REQUEST, [(0, len(TEXT))], [edit("a + b", "b + a")])
    (entry,) = one.decoder.cache.entries  # type: ignore[attr-defined]
    assert entry.kv.length == len(entry.tokens) and not entry.users


def test_the_original_is_ranked_among_the_edits_of_its_position() -> None:
    one, two, three = edit("a + b", "x"), edit("a + b", "y"), edit("return d", "z")
    found = ranked({one: Gain(3.0), two: Gain(1.0), three: Gain(-2.0)})
    assert [gain.rank for gain in found.values()] == pytest.approx([math.log(3), math.log(3), 0.0])
    assert [gain.margin for gain in found.values()] == [2.0, -2.0, -2.0]


def test_sections_cover_the_ranges_in_complete_lines() -> None:
    lines = [f"def f{number}(a):\n    x = a + {number}\n    return x\n\n" for number in range(400)]
    text = "".join(lines)
    parts = sections(text, [(0, len(text))])
    assert len(parts) > 2 and parts[0][0] == 0 and parts[-1][1] == len(text)
    assert all(end == start for (_, end), (start, _) in zip(parts, parts[1:], strict=False))
    assert all(end - start <= SECTION for start, end in parts)
    assert all(text[start:].startswith("def f") for start, _ in parts)


def test_ranges_that_are_close_are_one_section() -> None:
    start = TEXT.index("c * a")
    (part,) = sections(TEXT, [(start, start + 1)])
    assert TEXT[part[0] : part[1]] == "    d = c * a\n"
    (both,) = sections(TEXT, [(0, 3), (start, start + 1)])
    assert both == (0, part[1])


def test_a_long_line_is_a_section() -> None:
    text = "x = 1\n" + "y = " + "1 + " * SECTION + "1\nz = 2\n"
    parts = sections(text, [(0, len(text))])
    assert "".join(text[start:end] for start, end in parts) == text
    assert all(text[end - 1] == "\n" for _, end in parts)


def test_the_context_has_the_start_of_the_file_and_the_headers_of_the_blocks_around() -> None:
    filler = "".join(f"        self.x{number} = {number}\n" for number in range(150))
    about = "# about\n" * 100
    text = f"import this\n{about}class Shop:\n    def fill(self):\n{filler}"
    above = context_above(text, len(text) - 20)
    assert above.startswith("import this\n") and "class Shop:\n    def fill(self):\n        self.x" in above
    assert len(above) <= HEAD + ABOVE + 100 and "self.x2 = " not in above
    assert context_above(text, 30) == text[:30]


def test_the_masked_original_is_invisible() -> None:
    completer: Completer = tiny_completer()
    masked = DenoiserJudge(completer.denoiser, completer.family, completer.model.sampling)
    forward, back = edit("a + b", "b + a"), edit("b + a", "a + b", TEXT.replace("a + b", "b + a"))
    there = masked.gains(REQUEST, [(0, len(TEXT))], [forward])
    again = masked.gains(LintRequest(TEXT.replace("a + b", "b + a"), "python"), [(0, len(TEXT))], [back])
    assert len(there) + len(again) == 1  # what one gains the other loses


def test_masked_gains_are_the_same_alone_and_in_a_batch() -> None:
    completer: Completer = tiny_completer()
    masked = DenoiserJudge(completer.denoiser, completer.family, completer.model.sampling)
    text = "def f(a, b):\n" + "    g(a)\n" * (BATCH + 3)
    starts = [match.end() - 1 for match in re.finditer(r"g\(a", text)]
    edits = [Edit(at, at + 1, new, "wrong-name") for at in starts for new in ("b", "c")]
    request = LintRequest(text, "python")
    together = masked.gains(request, [(0, len(text))], [*edits, Edit(0, 3, "a\nb", "wrong-name")])
    assert len(together) > BATCH // 4 and all(one.end > 3 for one in together)
    for one, gain in [*together.items()][:6]:
        alone = masked.gains(request, [(0, len(text))], [other for other in edits if other.start == one.start])
        assert alone[one].total == pytest.approx(gain.total, abs=1e-3) and gain.total > 0

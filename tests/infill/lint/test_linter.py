"""Findings of an untrained model with low thresholds, and without a model."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from engine.errors import Cancelled, ModelError
from infill.cli.text_edits import apply
from infill.code.syntax import parse
from infill.findings import Finding, LintRequest, Range
from infill.lint.judge import Gain, IsPossible
from infill.lint.kinds import KINDS, ON_BY_DEFAULT, STYLE, Edit
from infill.lint.likelihood import CausalJudge
from infill.lint.linter import EditCandidate, Linter
from infill.lint.thresholds import EditEvidence, Threshold, Thresholds
from infill.request import Hole, Neighbour
from tests.infill.fakes import tiny_completer
from tests.infill.tiny_coder import coder

CODE = (
    "def area(width, height):\n    total = width * height\n    return total + 1\n\n\ndef other(a, b):\n    return a\n"
)


ALL = frozenset(KINDS)


def linter(minimum: float = -1.0, shown: bool = True, languages: tuple[str, ...] = ("python",)) -> Linter:
    """Shows everything that the model reads if `minimum` is below 0."""
    minimums = dict.fromkeys(languages if shown else (), minimum)
    thresholds = {code: Threshold({"edit_gain": 0.0}, 0.0, minimums) for code in KINDS}
    return Linter(coder(), Thresholds(thresholds))


@pytest.fixture(autouse=True)
def read_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gains of an untrained model are noise."""
    monkeypatch.setattr("infill.lint.likelihood.MIN_FIRST_GAIN", -1e9)


def fixed(text: str, found: list[Finding]) -> str:
    return apply(text, [(Hole(one.start, one.end), one.replacement) for one in found])


def test_findings_are_sorted_disjoint_and_parse() -> None:
    found = linter().lint(LintRequest(CODE, "python", on=ALL))
    assert found
    assert all(one.end <= other.start for one, other in zip(found, found[1:], strict=False))
    for one in found:
        assert one.replacement != CODE[one.start : one.end]
        tree = parse(fixed(CODE, [one]), "python")
        assert tree is not None and not tree.root.has_error


def test_many_overlapping_ranges_cost_and_find_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    gains = CausalJudge._section

    def counted(
        self: CausalJudge, request: LintRequest, section: Range, edits: Sequence[Edit], is_possible: IsPossible | None
    ) -> dict[Edit, Gain]:
        read.append((section, [*edits]))
        return gains(self, request, section, edits, is_possible)

    monkeypatch.setattr(CausalJudge, "_section", counted)
    whole = linter().lint(LintRequest(CODE, "python", on=ALL))
    once = [*read]
    parts = [(at, at + 10) for at in range(len(CODE) - 10)]
    for ranges in ([(0, len(CODE))] * 10_000, parts):
        read.clear()
        assert linter().lint(LintRequest(CODE, "python", ranges=tuple(ranges), on=ALL)) == whole and read == once


@pytest.mark.parametrize(
    "text",
    [
        "def f(a):\n" + "".join(f"    name_{n} = other_{n % 50} + name_{max(0, n - 1)}\n" for n in range(1500)),
        "class A:\n    def f(self):\n"
        + "".join(f"        self.m{n} = 1\n        m{n} = m{n + 1}\n" for n in range(700)),
        "x = (a\n" + "".join(f"    .b{n % 7}(c, d)\n" for n in range(3000)) + ")\n",
        "x = (a\n" + "".join(f"    + b{n % 7}\n" for n in range(3000)) + ")\n",
        "x = [\n" + "".join(f"    \"a{n}\", 'b',\n" for n in range(3000)) + "]\n",
        "def f(:\n    x = = y )\n" * 2000,
    ],
    ids=["function", "class", "chain", "sum", "list", "errors"],
)
def test_the_search_polls_often_and_can_be_left_anywhere(text: str) -> None:
    """Measured in lines of Python, so that the speed of the machine does not matter."""
    lint, polls = linter(), 0
    request = LintRequest(text, "python", on=ALL | frozenset(STYLE))

    def most_lines(limit: int) -> int:
        """The most lines that run between two polls, of at most `limit` polls."""
        nonlocal polls
        polls = most = lines = 0

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal lines
            lines += event == "line"
            return trace

        def stop() -> bool:
            nonlocal polls, most, lines
            polls, most, lines = polls + 1, max(most, lines), 0
            return polls >= limit

        sys.settrace(trace)
        try:
            with pytest.raises(Cancelled):
                lint.lint(request, stop)
        finally:
            sys.settrace(None)
        return most

    assert most_lines(3000) < 20_000 and polls == 3000
    assert most_lines(40) < 20_000 and polls == 40


def test_nothing_is_shown_below_the_threshold_or_of_kinds_that_are_off() -> None:
    assert linter(minimum=1.0).lint(LintRequest(CODE, "python", on=ALL)) == []
    assert linter(shown=False).lint(LintRequest(CODE, "python", on=ALL)) == []
    everything = linter().lint(LintRequest(CODE, "python", on=ALL))
    off = everything[0].code
    assert off not in {one.code for one in linter().lint(LintRequest(CODE, "python", on=ALL, off=frozenset({off})))}
    assert linter().lint(LintRequest(CODE, "python", on=ALL, off=frozenset(KINDS))) == []


def test_by_default_only_the_kinds_that_are_on_are_shown() -> None:
    missing = "class A:\n    def f(self):\n        self.total = 1\n\n    def g(self):\n        return total\n"
    found = linter().lint(LintRequest(missing, "python"))
    assert "missing-self" in {one.code for one in found} <= ON_BY_DEFAULT
    assert not ON_BY_DEFAULT & STYLE.keys()


def test_without_a_model_only_what_the_tree_shows_is_found() -> None:
    missing = "class A:\n    def f(self):\n        self.total = 1\n\n    def g(self):\n        return total\n"
    for completer in (None, tiny_completer()):
        one = Linter(completer)
        assert not one.can_lint
        (found,) = one.lint(LintRequest(missing, "python"))
        assert (found.code, found.replacement) == ("missing-self", "self.total")
        assert one.lint(LintRequest(CODE, "python")) == one.lint(LintRequest("x <- 1", None)) == []


def test_only_the_languages_of_the_thresholds_have_findings() -> None:
    assert linter(languages=("go",)).lint(LintRequest(CODE, "python", on=ALL)) == []
    assert linter().lint(LintRequest("x <- 1", None, on=ALL)) == []


def test_only_the_requested_ranges_have_findings() -> None:
    start = CODE.index("def other")
    found = linter().lint(LintRequest(CODE, "python", on=ALL, ranges=((start, len(CODE)),)))
    assert found and all(one.start >= start for one in found)


def test_windows_line_ends_only_change_offsets() -> None:
    windows = CODE.replace("\n", "\r\n")
    plain = linter().lint(LintRequest(CODE, "python", on=ALL))
    found = linter().lint(LintRequest(windows, "python", on=ALL))
    assert [(windows[one.start : one.end], one.replacement, one.score) for one in found] == [
        (CODE[one.start : one.end], one.replacement, one.score) for one in plain
    ]
    assert fixed(windows, found) == fixed(CODE, plain).replace("\n", "\r\n")
    start = windows.index("def other")
    assert linter().lint(LintRequest(windows, "python", on=ALL, ranges=((start, len(windows)),))) == [
        one for one in found if one.start >= start
    ]


def test_ignored_lines_and_generated_files_have_no_findings() -> None:
    suppressed = "".join(line + "  # gesso: ignore\n" if line.strip() else "\n" for line in CODE.splitlines())
    assert linter().lint(LintRequest(suppressed, "python", on=ALL)) == []
    assert linter().lint(LintRequest("# Generated by make.\n" + CODE, "python", on=ALL)) == []
    assert linter().lint(LintRequest(CODE, "python", "site-packages/x.py", on=ALL)) == []


def test_a_name_of_another_file_is_not_misspelled() -> None:
    text = "def f(items, count):\n    print(items, items, itmes)\n"
    request = LintRequest(text, "python", on=ALL)
    with_neighbour = replace(request, neighbours=(Neighbour("b.py", "itmes = 1\n"),))
    codes = [{one.edit.code for one in linter().candidates(one, ["misspelled"])} for one in (request, with_neighbour)]
    assert codes == [{"misspelled"}, set()]


def test_lint_can_be_cancelled() -> None:
    with pytest.raises(Cancelled):
        linter().lint(LintRequest(CODE, "python", on=ALL), stop=lambda: True)


def test_the_score_is_the_total_gain() -> None:
    one = linter()
    request = LintRequest(CODE, "python", on=ALL)
    gains = {
        (candidate.edit.start, candidate.edit.replacement): candidate.evidence.total_gain
        for candidate in one.candidates(request)
    }
    for finding in one.lint(request):
        assert finding.score == pytest.approx(gains[finding.start, finding.replacement], abs=1e-3)


def test_lower_thresholds_show_more() -> None:
    strict = linter(minimum=0.5)
    request = LintRequest(CODE, "python", on=ALL)
    candidates = strict.candidates(request)
    assert candidates and strict.select(request, candidates) == [] and strict.select(request, candidates, offset=1.0)


def test_the_same_change_is_proposed_once_a_line() -> None:
    text = "def f(first, second):\n    return min(first[1], first[1])\n"
    by_gain = {"wrong-name": Threshold({"edit_gain": 1.0, "operand_change": 1.0}, 0.0, {"python": 1.0})}
    strict = Linter(coder(), Thresholds(by_gain))
    edits = [
        EditCandidate(Edit(at, at + 5, "second", "wrong-name"), EditEvidence(edit_gain=gain, operand_change=1.0))
        for at, gain in ((text.index("first["), 0.5), (text.rindex("first["), 0.75))
    ]
    assert strict.select(LintRequest(text, "python"), edits) == [edits[1]]


def test_a_longer_name_beside_a_syntax_error_is_found() -> None:
    text = "def f(a, other):\n    return a\n\n\ndef g(:\n    return ((\n"
    at = text.index("a\n\n")
    edit = EditCandidate(Edit(at, at + 1, "other", "wrong-name"), EditEvidence())
    assert linter(minimum=0.0).select(LintRequest(text, "python"), [edit]) == [edit]


def test_equal_operands_have_one_finding() -> None:
    text = "def f(a, b, c):\n    return min(a[1], a[1]), a and b and a, c < c\n"
    at = text.index("min(")
    evidence = EditEvidence(edit_gain=1.0, operand_change=1.0)

    def edit(start: int, new: str, code: str, gain: float) -> EditCandidate:
        return EditCandidate(Edit(start, start + 1, new, code), replace(evidence, edit_gain=gain))

    thresholds = {code: Threshold({"edit_gain": 1.0}, 0.0, {"python": 0.0}) for code in KINDS}
    thresholds["off-by-one"] = Threshold({}, 9.0, {"python": 0.0})
    joined, less = text.index("a and b"), text.index("c < c")
    edits = [
        edit(at + 6, "0", "off-by-one", 1.0),
        edit(at + 10, "b", "wrong-name", 3.0),
        edit(at + 12, "2", "off-by-one", 2.0),
        edit(joined, "c", "wrong-name", 2.0),
        edit(joined + 12, "b", "wrong-name", 1.0),
        edit(less + 4, "a", "wrong-name", 1.0),
    ]
    found = Linter(coder(), Thresholds(thresholds)).select(LintRequest(text, "python"), edits)
    assert found == [edits[1], edits[3], edits[5]]


def test_operands_are_evidence() -> None:
    text = "def f(first, second):\n    return min(first[1], first[1])\n"
    found = linter().candidates(LintRequest(text, "python"), ("wrong-name",))
    assert any(one.evidence.operand_change == 1.0 for one in found if one.edit.replacement == "second")


def test_evidence_is_clamped() -> None:
    threshold = Threshold({"edit_gain": 1.0, "suffix_gain": 1.0}, 0.5, {})
    assert threshold.log_odds(EditEvidence(edit_gain=1000.0, suffix_gain=-1.0)) == pytest.approx(0.5 + 12 - 1)


@pytest.mark.parametrize("on_by_default", [True, False])
def test_thresholds_are_written_and_read_by_model(tmp_path: Path, on_by_default: bool) -> None:
    file, minimums = tmp_path / "lint.json", {"python": 0.25, "typescript": 1.0}
    thresholds = Thresholds({"wrong-name": Threshold({"edit_gain": 1.5}, -2.0, minimums)}, on_by_default)
    assert Thresholds.read("coder", file) is None
    thresholds.write("coder", {"lines": 3}, file)
    Thresholds({}).write("26b", {}, file)
    assert Thresholds.read("coder", file) == thresholds
    assert Thresholds.read("coder-1.5b", file) == replace(thresholds, on_by_default=False), "nobody has measured it"
    assert Thresholds.read("26b", file) == Thresholds({})
    assert thresholds.languages == {"python", "typescript", "tsx"}
    assert thresholds.shown("tsx") == {"wrong-name"} and not thresholds.shown("go") and not thresholds.shown(None)
    file.write_text("[]")
    with pytest.raises(ModelError, match="install Gesso again"):
        Thresholds.read("coder", file)


def test_the_coder_alone_lints_by_default() -> None:
    own, other = Thresholds.read("coder"), Thresholds.read("26b")
    assert own is not None and own.on_by_default
    assert other is not None and not other.on_by_default


def test_the_files_of_lint_are_read_once_per_process() -> None:
    first, second = (Linter(coder()) for _ in range(2))
    assert first.known is not None and first.known is second.known
    assert first.thresholds is second.thresholds

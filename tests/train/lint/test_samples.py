"""Samples of held-out code."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.errors import InputError
from infill.code.syntax import parse
from infill.findings import LintRequest
from infill.lint.edits import find_edits
from infill.lint.kinds import KINDS
from infill.lint.linter import EditCandidate
from infill.lint.symbols import SymbolTable
from infill.lint.thresholds import EditEvidence
from tests.train.lint.fakes import clean, file, seeded
from train.lint.samples import NEAR, Sample, check_kinds, make_samples, read_samples


class EveryEdit:
    """A linter whose candidates are all edits."""

    def candidates(
        self, request: LintRequest, codes: Sequence[str], offset: float | None = None
    ) -> list[EditCandidate]:
        tree = parse(request.text, request.language)
        assert tree is not None
        edits = find_edits(tree, SymbolTable(tree), request.ranges)
        return [EditCandidate(edit, EditEvidence(edit_gain=1.0)) for edit in edits if edit.code in codes]


def made(done: int = 0) -> list[Sample]:
    files = [file(file().text * 2), file(file().text * 3)]
    return [*make_samples(EveryEdit(), files, 3, tuple(KINDS), done)]  # type: ignore[arg-type]


def test_most_files_get_bugs_and_what_is_near_them_does_not_count_as_clean() -> None:
    untouched, with_bugs = made()
    assert untouched.bugs is None and len(untouched.candidates) > 20 and untouched.lines == 26
    assert with_bugs.bugs and with_bugs.lines == 3 * 13 - (2 * NEAR + 1) * len(with_bugs.bugs)
    assert all(abs(one.line - bug.line) > NEAR for one in with_bugs.candidates for bug in with_bugs.bugs)
    assert len({bug.code for bug in with_bugs.bugs}) == len(with_bugs.bugs)
    found = [bug for bug in with_bugs.bugs if bug.right is not None]
    assert found and all(bug.candidates[bug.right or 0].candidate.edit.replacement for bug in found)


def test_a_run_continues_with_the_same_samples() -> None:
    def facts(sample: Sample) -> Sample:
        return Sample(**vars(sample) | {"seconds": 0.0})

    assert [facts(one) for one in made(done=1)] == [facts(one) for one in made()[1:]]


def test_samples_survive_json(tmp_path: Path) -> None:
    samples = [seeded(2.0), seeded(1.0, right=False), clean(1.0, 2.0)]
    (tmp_path / "samples").write_text("".join(json.dumps(one.to_json()) + "\n" for one in samples))
    assert read_samples(tmp_path / "samples") == samples
    with pytest.raises(InputError, match="no file"):
        read_samples(tmp_path / "none")


def test_unknown_kinds_are_refused() -> None:
    assert check_kinds(None) == tuple(KINDS) and check_kinds(["misspelled"]) == ("misspelled",)
    with pytest.raises(InputError, match="wrong-nmae"):
        check_kinds(["wrong-nmae"])

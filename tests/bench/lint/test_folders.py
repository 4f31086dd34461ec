"""Lint of released code: the files read and the findings counted."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from bench.lint.folders import SourceFile, findings_in, folders_report, read_sources, samples_of
from engine.errors import InputError, Stop
from infill.findings import LintRequest
from infill.lint.kinds import KINDS, Edit
from infill.lint.linter import EditCandidate, Linter
from infill.lint.thresholds import EditEvidence, Threshold, Thresholds

PYTHON = frozenset({"python"})


def test_ordinary_files_are_read_up_to_a_number_of_lines(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "pkg"
    package.mkdir(parents=True)
    for name in ("a.py", "b.py", "c.py", "test_a.py", "d.js", "made_pb2.py"):
        (package / name).write_bytes(b"x = 1\r\ny = 2\r\n")
    (package / "bad.py").write_bytes(b"\xff")
    every = read_sources(package, PYTHON, 100, 1)
    assert sorted(one.path for one in every) == ["pkg/a.py", "pkg/b.py", "pkg/c.py"]
    assert every[0] == SourceFile("pkg", every[0].path, "python", "x = 1\ny = 2\n")
    assert len(read_sources(package, PYTHON, 3, 1)) == 2
    with pytest.raises(InputError, match="no folder"):
        read_sources(tmp_path / "none", PYTHON, 1, 1)


class FakeLinter(Linter):
    """Finds every `wrong`."""

    def __init__(self) -> None:
        self.thresholds = Thresholds({"wrong-name": Threshold({}, 1.0, {"python": 0.0})})
        self.requests = 0

    def candidates(
        self,
        request: LintRequest,
        codes: Iterable[str] = KINDS,
        stop: Stop | None = None,
        offset: float | None = None,
    ) -> list[EditCandidate]:
        self.requests += 1
        at = request.text.find("wrong")
        return [EditCandidate(Edit(at, at + 5, "right", "wrong-name"), EditEvidence())] if at >= 0 else []


def test_findings_are_counted_by_folder_and_listed(tmp_path: Path) -> None:
    sources = [
        SourceFile("a", "a/x.py", "python", "x\n" * 250 + "y = wrong\n"),
        SourceFile("b", "b/y.py", "python", "x\n" * 749),
    ]
    linter = FakeLinter()
    samples_of(linter, sources[:1], tmp_path / "cache")
    samples = samples_of(linter, sources, tmp_path / "cache")
    assert linter.requests == 2
    found = [findings_in(linter, one, sample) for one, sample in zip(sources, samples, strict=True)]
    report = folders_report(sources, found, {"model": "fake"})
    assert report.rows == [
        ["a", "251", "1", "3.98"],
        ["b", "749", "0", "0.00"],
        ["all, python", "1,000", "1", "1.00"],
        ["all", "1,000", "1", "1.00"],
    ]
    assert report.notes == ["a/x.py:251: wrong-name: `wrong` -> `right`"]

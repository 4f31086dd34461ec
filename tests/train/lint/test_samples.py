"""Samples of held-out code."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.errors import InputError
from infill.findings import LintRequest
from infill.lint.kinds import KINDS
from infill.lint.linter import EditCandidate
from tests.train.lint.fakes import file
from train.lint.samples import check_kinds, make_samples


class CountingLinter:
    """Has no candidates, and counts requests."""

    requests = 0

    def candidates(self, request: LintRequest, codes: Sequence[str]) -> list[EditCandidate]:
        self.requests += 1
        return []


def test_samples_are_cached_by_their_options(tmp_path: Path) -> None:
    linter, cache = CountingLinter(), tmp_path / "samples"
    files = [file()]
    first = make_samples(linter, files, 10, 1, 3, ("wrong-name",), cache)  # type: ignore[arg-type]
    requests = linter.requests
    assert requests == 2 and [bug.bug.code for bug in first.seeded] == ["wrong-name"]
    again = make_samples(linter, files, 10, 1, 3, ("wrong-name",), cache)  # type: ignore[arg-type]
    assert again.seeded[0].bug == first.seeded[0].bug and linter.requests == requests
    assert make_samples(linter, files, 10, 1, 4, ("wrong-name",), cache).options["seed"] == 4  # type: ignore[arg-type]
    assert linter.requests == 2 * requests


def test_unknown_kinds_are_refused() -> None:
    assert check_kinds(None) == tuple(KINDS) and check_kinds(["misspelled"]) == ("misspelled",)
    with pytest.raises(InputError, match="wrong-nmae"):
        check_kinds(["wrong-nmae"])

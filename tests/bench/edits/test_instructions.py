"""The rewrites of the benchmark: their tests fail before the rewrite and can pass after it."""

from __future__ import annotations

import pytest

from bench.edits.instructions import Outcome, Rewrite, is_runnable, passes, read_rewrites, row
from infill.edit_request import EditResult

REWRITES = read_rewrites()


def test_there_are_sixty_rewrites_with_different_names() -> None:
    assert len(REWRITES) == len({one.name for one in REWRITES}) == 60


@pytest.mark.slow
@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda one: one.name)
def test_the_tests_fail_before_the_rewrite(rewrite: Rewrite) -> None:
    if not is_runnable(rewrite.language):
        pytest.skip(f"{rewrite.language} cannot be run")
    assert not passes(rewrite.request.text, rewrite.tests, rewrite.language)
    main = "int main(void) { return 0; }" if rewrite.language == "c" else ""
    assert passes(rewrite.request.text, main, rewrite.language), "the code itself runs"


def test_code_that_passes_and_code_that_does_not() -> None:
    assert passes("x = 1", "assert x == 1") and not passes("x = 1", "assert x == 2")


def test_code_that_does_not_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.edits.instructions.SECONDS", 1)
    assert not passes("while True: pass", "")


def test_only_what_is_shown_and_right_counts_as_passed() -> None:
    def outcome(shown: bool, right: bool) -> Outcome:
        return Outcome("one", EditResult(0, 1, "x", shown, None, (), 1, 1, {"total": 1000.0}, "tiny"), right)

    cells, figures = row("tiny", [outcome(True, True), outcome(True, False), outcome(False, True)])
    assert cells[:4] == ["tiny", "1 of 3", "2 of 3", "50 %"]
    assert (figures["pass"], figures["shown"], len(figures["failed"])) == (1, 2, 2)

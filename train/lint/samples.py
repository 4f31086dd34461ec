"""Candidate edits with their evidence, for sections of held-out code as they are and with seeded bugs.

`python -m train.lint.samples --corpus DIR/corpus --out FILE.jsonl` writes one line per section, and continues where it
stopped. train.lint.thresholds learns from them, bench.lint.run measures with them, on different projects. Must not know
thresholds.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import InputError
from infill.cli.support import errors_to_exit_codes, load_completer
from infill.code.syntax import parse
from infill.findings import LintRequest, Range
from infill.lint.kinds import KINDS, Edit
from infill.lint.likelihood import sections
from infill.lint.linter import EditCandidate, Linter
from infill.lint.suppressions import is_skipped
from infill.lint.symbols import SymbolTable
from infill.lint.thresholds import EditEvidence
from infill.settings import Settings
from train.held_out import HeldOutFile, is_for_calibration, read_held_out
from train.lint.seeded_bugs import SeededBug, seed_bugs

MAX_FILE = 60_000  # characters
MIN_FILE = 800
MAX_BUGS = 12  # seeded into a section
NEAR = 3  # lines between a bug and code that counts as clean
CLEAN_EVERY = 4  # one section in so many stays unchanged
ALL_LANGUAGES = ("python", "javascript", "typescript", "go")


@dataclass(frozen=True)
class Found:
    """A candidate. old: the text that it replaces; line: its number from 1."""

    candidate: EditCandidate
    old: str
    line: int


@dataclass(frozen=True)
class Bug:
    """A seeded bug. candidates: those that overlap it. right: the index of the one that restores the text; None if the
    model did not read it."""

    code: str
    line: int
    wrong: str
    original: str
    candidates: list[Found]
    right: int | None


@dataclass(frozen=True)
class Sample:
    """A section of a file. lines: those without bugs near; functions: how many begin in it; seconds: how long linting
    took. candidates: those without bugs near. bugs: None for an unchanged section."""

    project: str
    path: str
    language: str
    start: int
    lines: int
    functions: int
    seconds: float
    candidates: list[Found]
    bugs: list[Bug] | None

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: value for name, value in vars(self).items() if name not in ("candidates", "bugs")},
            "candidates": [_found_to_json(one) for one in self.candidates],
            "bugs": None
            if self.bugs is None
            else [vars(bug) | {"candidates": [_found_to_json(one) for one in bug.candidates]} for bug in self.bugs],
        }

    @staticmethod
    def from_json(row: dict[str, Any]) -> Sample:
        found = [_found_from_json(one) for one in row["candidates"]]
        bugs = row["bugs"] and [
            Bug(**bug | {"candidates": [_found_from_json(one) for one in bug["candidates"]]}) for bug in row["bugs"]
        ]
        return Sample(**row | {"candidates": found, "bugs": bugs})


def _found_to_json(one: Found) -> dict[str, Any]:
    evidence = {name: round(value, 3) for name, value in asdict(one.candidate.evidence).items() if value}
    return {**vars(one.candidate.edit), "evidence": evidence, "old": one.old, "line": one.line}


def _found_from_json(row: dict[str, Any]) -> Found:
    edit = Edit(row["start"], row["end"], row["replacement"], row["code"])
    return Found(EditCandidate(edit, EditEvidence(**row["evidence"])), row["old"], row["line"])


def read_samples(file: Path) -> list[Sample]:
    """Raises InputError if there is no such file."""
    if not file.is_file():
        raise InputError(f"There is no file {file}; write it with `python -m train.lint.samples --out {file}`.")
    return [Sample.from_json(json.loads(line)) for line in file.read_text("utf-8").splitlines()]


def round_robin(files: Sequence[HeldOutFile], seed: int) -> list[HeldOutFile]:
    """One file of every project, then a second one, and so on, without files that lint skips."""
    rng = random.Random(seed)
    projects: dict[str, list[HeldOutFile]] = defaultdict(list)
    for file in sorted(files, key=lambda file: (file.project, file.path)):
        if MIN_FILE <= len(file.text) <= MAX_FILE and not is_skipped(file.path, file.text):
            projects[file.project].append(file)
    shuffled = [rng.sample(members, len(members)) for members in projects.values()]
    return [file for turn in zip_longest(*shuffled) for file in turn if file is not None]


def clean_sample(
    linter: Linter,
    file: HeldOutFile,
    section: Range,
    codes: Sequence[str] = tuple(KINDS),
    offset: float | None = None,
) -> Sample:
    """The candidates of an unchanged section. offset: see `Linter.candidates`."""
    started = time.perf_counter()
    request = LintRequest(file.text, file.language, file.path, (section,))
    found = [_found(one, file.text) for one in linter.candidates(request, codes, offset=offset)]
    return _sample(file, section, time.perf_counter() - started, found, None)


def seeded_sample(
    linter: Linter, file: HeldOutFile, section: Range, seeded: Sequence[SeededBug], codes: Sequence[str] = tuple(KINDS)
) -> Sample:
    """The candidates at the bugs that were seeded into a section, all in the same text."""
    text = seeded[0].text
    started = time.perf_counter()
    around = section[0], section[1] + len(text) - len(file.text)
    request = LintRequest(text, file.language, file.path, (around,))
    candidates = linter.candidates(request, codes)
    seconds = time.perf_counter() - started
    bugs = []
    for bug in seeded:
        near = [one for one in candidates if _is_near(one.edit, bug)]
        right = next((index for index, one in enumerate(near) if _restores(one.edit, bug)), None)
        line = text.count("\n", 0, bug.start) + 1
        wrong = text[bug.start : bug.end]
        bugs.append(Bug(bug.code, line, wrong, bug.right, [_found(one, text) for one in near], right))
    numbers = [bug.line for bug in bugs]
    far = [_found(one, text) for one in candidates]
    far = [one for one in far if all(abs(one.line - number) > NEAR for number in numbers)]
    return _sample(file, section, seconds, far, bugs)


def _is_near(edit: Edit, bug: SeededBug) -> bool:
    """Whether the edit overlaps the bug, or touches one that removed something."""
    if bug.start == bug.end:
        return edit.start <= bug.end and bug.start <= edit.end
    return edit.start < bug.end and bug.start < edit.end


def _restores(edit: Edit, bug: SeededBug) -> bool:
    text = bug.text
    return text[: edit.start] + edit.replacement + text[edit.end :] == bug.original


def _found(one: EditCandidate, text: str) -> Found:
    return Found(one, text[one.edit.start : one.edit.end], text.count("\n", 0, one.edit.start) + 1)


def _sample(file: HeldOutFile, section: Range, seconds: float, found: list[Found], bugs: list[Bug] | None) -> Sample:
    tree = parse(file.text, file.language)
    functions = SymbolTable(tree).functions if tree is not None else []
    inside = sum(section[0] <= one.start < section[1] for one in functions)
    lines = max(0, file.text.count("\n", *section) - (2 * NEAR + 1) * len(bugs or ()))
    return Sample(file.project, file.path, file.language, section[0], lines, inside, round(seconds, 3), found, bugs)


def make_samples(
    linter: Linter, files: Sequence[HeldOutFile], seed: int, codes: Sequence[str], done: int = 0
) -> Iterator[Sample]:
    """One section of each file, most of them with bugs, whose kinds take turns. done: samples to skip."""
    counts: Counter[str] = Counter()
    for number, file in enumerate(files):
        rng = random.Random(f"{seed}/{file.project}/{file.path}")
        possible = sections(file.text, ((0, len(file.text)),))
        if not possible:
            continue
        section = rng.choice(possible)
        seeded: list[SeededBug] = []
        if number % CLEAN_EVERY:
            order = sorted(codes, key=lambda code: (counts[code], rng.random()))
            seeded = seed_bugs(file.text, file.language, [*order, *order], rng, section, MAX_BUGS)
            counts.update(bug.code for bug in seeded)
        if number % CLEAN_EVERY and not seeded:
            continue
        if done:
            done -= 1
            continue
        yield (
            seeded_sample(linter, file, section, seeded, codes)
            if seeded
            else clean_sample(linter, file, section, codes)
        )


def check_kinds(named: Sequence[str] | None) -> tuple[str, ...]:
    """The named kinds, or all if none is named. Raises InputError for an unknown kind."""
    for code in named or ():
        if code not in KINDS:
            raise InputError(f"There is no kind {code!r}; choose from {', '.join(KINDS)}.")
    return tuple(named or KINDS)


@errors_to_exit_codes
def main(
    corpus: Annotated[Path, typer.Option(help="Folder that train.corpus wrote.")],
    out: Annotated[Path, typer.Option(help="File to write; samples that it has are not made again.")],
    model: Annotated[str, typer.Option(help="Model that judges: a name or a folder.")] = "coder",
    language: Annotated[list[str] | None, typer.Option(help="Repeatable; default: all that lint judges.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Of the projects that serve to measure.")] = False,
    most: Annotated[int, typer.Option(min=1, help="Most samples of a language.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed for the choice of files and bugs.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Write samples of held-out projects."""
    linter = Linter(load_completer(Settings(model=model, threads=threads)))
    made = Counter(one.language for one in read_samples(out)) if out.is_file() else Counter[str]()
    with out.open("a", encoding="utf-8") as file:
        waiting = {}
        for name in language or ALL_LANGUAGES:
            files = [one for one in read_held_out(corpus, [name]) if is_for_calibration(one.project) != measure]
            waiting[name] = make_samples(linter, round_robin(files, seed)[:most], seed, tuple(KINDS), made[name])
        while waiting:
            for name in [*waiting, *waiting][: len(waiting) + 2]:  # the first two languages twice
                sample = next(waiting[name], None) if name in waiting else None
                if sample is None:
                    waiting.pop(name, None)
                    continue
                file.write(json.dumps(sample.to_json()) + "\n")
                file.flush()


if __name__ == "__main__":
    typer.run(main)

"""Candidate edits with their evidence for held-out code, as it is and with one seeded bug.

train.lint.thresholds learns from them, bench.lint.run measures with them, on different projects. Must not know
thresholds.
"""

from __future__ import annotations

import pickle
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from rich.console import Console
from rich.progress import track

from engine.errors import InputError
from infill.code.syntax import parse
from infill.findings import LintRequest
from infill.lint.kinds import KINDS
from infill.lint.linter import EditCandidate, Linter
from infill.lint.suppressions import is_skipped
from infill.lint.symbols import SymbolTable
from train.held_out import HeldOutFile
from train.lint.seeded_bugs import SeededBug, seed_bug

MAX_FILE = 40_000  # characters


@dataclass(frozen=True)
class CleanSample:
    """An unchanged file. functions: how many it has. seconds: how long linting took."""

    file: HeldOutFile
    lines: int
    functions: int
    seconds: float
    candidates: list[EditCandidate]


@dataclass(frozen=True)
class SeededSample:
    """A file with a seeded bug. candidates: only within the function of the bug."""

    file: HeldOutFile
    bug: SeededBug
    seconds: float
    candidates: list[EditCandidate]

    def is_right(self, candidate: EditCandidate) -> bool:
        """Whether the edit restores the original text."""
        edit, text = candidate.edit, self.bug.text
        return text[: edit.start] + edit.replacement + text[edit.end :] == self.bug.original

    def is_near(self, candidate: EditCandidate) -> bool:
        """Whether the edit overlaps the bug."""
        return candidate.edit.start < self.bug.end and self.bug.start < candidate.edit.end


def round_robin(files: Sequence[HeldOutFile], seed: int) -> list[HeldOutFile]:
    """One file of every project, then a second one, and so on, without files that lint skips."""
    rng = random.Random(seed)
    projects: dict[str, list[HeldOutFile]] = defaultdict(list)
    for file in sorted(files, key=lambda file: (file.project, file.path)):
        if len(file.text) <= MAX_FILE and not is_skipped(file.path, file.text):
            projects[file.project].append(file)
    shuffled = [rng.sample(members, len(members)) for members in projects.values()]
    return [file for turn in zip_longest(*shuffled) for file in turn if file is not None]


@dataclass(frozen=True)
class Samples:
    """The samples of one run. options: how they were chosen."""

    clean: list[CleanSample]
    seeded: list[SeededSample]
    options: dict[str, int | list[str]]


def make_samples(
    linter: Linter,
    files: Sequence[HeldOutFile],
    lines: int,
    count: int,
    seed: int,
    kinds: Sequence[str] = tuple(KINDS),
    cache: Path | None = None,
) -> Samples:
    """About `lines` lines of clean code, and at most `count` bugs of each of `kinds`.

    cache: a file to load the samples from if it was written with the same options, else to write them to. It is
    unpickled, so it must be your own.
    """
    options: dict[str, int | list[str]] = {"lines": lines, "count": count, "seed": seed, "kinds": list(kinds)}
    if cache is not None and cache.is_file():
        samples = pickle.loads(cache.read_bytes())
        if isinstance(samples, Samples) and samples.options == options:
            return samples
    clean = clean_samples(linter, files, lines, seed, kinds)
    samples = Samples(clean, seeded_samples(linter, files, count, seed, kinds), options)
    if cache is not None:
        cache.write_bytes(pickle.dumps(samples))
    return samples


def check_kinds(named: Sequence[str] | None) -> tuple[str, ...]:
    """The named kinds, or all if none is named. Raises InputError for an unknown kind."""
    for code in named or ():
        if code not in KINDS:
            raise InputError(f"There is no kind {code!r}; choose from {', '.join(KINDS)}.")
    return tuple(named or KINDS)


def clean_samples(
    linter: Linter, files: Sequence[HeldOutFile], lines: int, seed: int, kinds: Iterable[str] = KINDS
) -> list[CleanSample]:
    """About `lines` lines of whole files."""
    chosen, total = [], 0
    for file in round_robin(files, seed):
        if total >= lines:
            break
        chosen.append(file)
        total += file.text.count("\n")
    found = []
    for file in track(chosen, "clean", console=Console(stderr=True), transient=True):
        started = time.perf_counter()
        candidates = linter.candidates(_request(file, file.text), kinds)
        seconds = time.perf_counter() - started
        found.append(CleanSample(file, file.text.count("\n"), _functions(file), seconds, candidates))
    return found


def seeded_samples(
    linter: Linter, files: Sequence[HeldOutFile], count: int, seed: int, kinds: Sequence[str] = tuple(KINDS)
) -> list[SeededSample]:
    """At most `count` bugs of each kind, at most one of a kind per file."""
    rng = random.Random(seed)
    order = round_robin(files, seed + 1)
    bugs: list[tuple[HeldOutFile, SeededBug]] = []
    for code in kinds:
        of_kind: list[tuple[HeldOutFile, SeededBug]] = []
        for file in order:
            if len(of_kind) == count:
                break
            bug = seed_bug(file.text, file.language, code, rng)
            if bug is not None and bug.scope[1] - bug.scope[0] < MAX_FILE:
                of_kind.append((file, bug))
        bugs += of_kind
    found = []
    for file, bug in track(bugs, "seeded", console=Console(stderr=True), transient=True):
        started = time.perf_counter()
        candidates = linter.candidates(_request(file, bug.text, (_around(bug),)), kinds)
        found.append(SeededSample(file, bug, time.perf_counter() - started, candidates))
    return found


def _around(bug: SeededBug, reach: int = 600) -> tuple[int, int]:
    """The function of the bug, cut to `reach` characters on either side."""
    return max(bug.scope[0], bug.start - reach), min(bug.scope[1], bug.end + reach)


def _request(file: HeldOutFile, text: str, ranges: tuple[tuple[int, int], ...] = ()) -> LintRequest:
    return LintRequest(text, file.language, file.path, ranges)


def _functions(file: HeldOutFile) -> int:
    tree = parse(file.text, file.language)
    return len(SymbolTable(tree).functions) if tree is not None else 0

"""What the linter says of held-out code, clean and with one bug put in: every edit it looked at, with its evidence.

train.lint.thresholds learns from such samples, bench.lint.run judges by them; of different projects. Must not know bars.
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
from infill.findings import LintRequest
from infill.lint.kinds import KINDS
from infill.lint.linter import Judged, Linter
from infill.lint.quiet import is_left_alone
from train.held_out import HeldOutFile
from train.lint.seeded_bugs import SeededBug, seed_bug

LARGEST = 40_000  # characters of a file


@dataclass(frozen=True)
class CleanSample:
    """A file as it is. functions: how many it has; seconds: what judging it took."""

    file: HeldOutFile
    lines: int
    functions: int
    seconds: float
    judged: list[Judged]


@dataclass(frozen=True)
class SeededSample:
    """A function with a bug; `judged` within it only."""

    file: HeldOutFile
    bug: SeededBug
    seconds: float
    judged: list[Judged]

    def is_right(self, judged: Judged) -> bool:
        """Whether the edit makes the text what it was."""
        edit, text = judged.edit, self.bug.text
        return text[: edit.start] + edit.replacement + text[edit.end :] == self.bug.mended

    def is_near(self, judged: Judged) -> bool:
        """Whether the edit touches what is wrong."""
        return judged.edit.start < self.bug.end and self.bug.start < judged.edit.end


def in_turns(files: Sequence[HeldOutFile], seed: int) -> list[HeldOutFile]:
    """One file from every project, then a second, and so on; those that lint leaves alone are left out."""
    rng = random.Random(seed)
    projects: dict[str, list[HeldOutFile]] = defaultdict(list)
    for file in sorted(files, key=lambda file: (file.project, file.path)):
        if len(file.text) <= LARGEST and not is_left_alone(file.path, file.text):
            projects[file.project].append(file)
    turns = [rng.sample(own, len(own)) for own in projects.values()]
    return [file for turn in zip_longest(*turns) for file in turn if file is not None]


@dataclass(frozen=True)
class Samples:
    """What one run judged, and by which choice."""

    clean: list[CleanSample]
    seeded: list[SeededSample]
    choice: dict[str, int | list[str]]


def judge(
    linter: Linter,
    files: Sequence[HeldOutFile],
    lines: int,
    count: int,
    seed: int,
    kinds: Sequence[str] = tuple(KINDS),
    kept: Path | None = None,
) -> Samples:
    """About `lines` lines of clean code, and at most `count` bugs of each of `kinds`.

    kept: a file of samples that were judged by the same choice before, which are taken from there (it must be one's
    own: it is unpickled); where there is none, or of another choice, it is written.
    """
    choice: dict[str, int | list[str]] = {"lines": lines, "count": count, "seed": seed, "kinds": list(kinds)}
    if kept is not None and kept.is_file():
        samples = pickle.loads(kept.read_bytes())
        if isinstance(samples, Samples) and samples.choice == choice:
            return samples
    clean = judge_clean(linter, files, lines, seed, kinds)
    samples = Samples(clean, judge_seeded(linter, files, count, seed, kinds), choice)
    if kept is not None:
        kept.write_bytes(pickle.dumps(samples))
    return samples


def kinds_of(named: Sequence[str] | None) -> tuple[str, ...]:
    """All kinds where none is named. InputError for one that there is not."""
    for code in named or ():
        if code not in KINDS:
            raise InputError(f"There is no kind {code!r}; known are {', '.join(KINDS)}.")
    return tuple(named or KINDS)


def judge_clean(
    linter: Linter, files: Sequence[HeldOutFile], lines: int, seed: int, kinds: Iterable[str] = KINDS
) -> list[CleanSample]:
    """About `lines` lines of whole files."""
    chosen, total = [], 0
    for file in in_turns(files, seed):
        if total >= lines:
            break
        chosen.append(file)
        total += file.text.count("\n")
    found = []
    for file in track(chosen, "clean", console=Console(stderr=True), transient=True):
        started = time.perf_counter()
        judged = linter.judge(_request(file, file.text), kinds)
        seconds = time.perf_counter() - started
        found.append(CleanSample(file, file.text.count("\n"), _functions(file), seconds, judged))
    return found


def judge_seeded(
    linter: Linter, files: Sequence[HeldOutFile], count: int, seed: int, kinds: Sequence[str] = tuple(KINDS)
) -> list[SeededSample]:
    """At most `count` bugs of every kind, at most one of a kind in a file."""
    rng = random.Random(seed)
    order = in_turns(files, seed + 1)
    bugs: list[tuple[HeldOutFile, SeededBug]] = []
    for code in kinds:
        own: list[tuple[HeldOutFile, SeededBug]] = []
        for file in order:
            if len(own) == count:
                break
            bug = seed_bug(file.text, file.language, code, rng)
            if bug is not None and bug.scope[1] - bug.scope[0] < LARGEST:
                own.append((file, bug))
        bugs += own
    found = []
    for file, bug in track(bugs, "seeded", console=Console(stderr=True), transient=True):
        started = time.perf_counter()
        judged = linter.judge(_request(file, bug.text, (_around(bug),)), kinds)
        found.append(SeededSample(file, bug, time.perf_counter() - started, judged))
    return found


def _around(bug: SeededBug, reach: int = 600) -> tuple[int, int]:
    """The function, but no more than `reach` characters of it on either side of the bug."""
    return max(bug.scope[0], bug.start - reach), min(bug.scope[1], bug.end + reach)


def _request(file: HeldOutFile, text: str, ranges: tuple[tuple[int, int], ...] = ()) -> LintRequest:
    return LintRequest(text, file.language, file.path, ranges)


def _functions(file: HeldOutFile) -> int:
    from infill.code.syntax import parse
    from infill.lint.survey import Survey

    tree = parse(file.text, file.language)
    return len(Survey(tree).functions) if tree is not None else 0

"""Scenarios of typing: real files with regions that are typed again. Must not know who types them or how."""

from __future__ import annotations

import json
import random
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError
from infill.code.languages import detect
from train.held_out import HeldOutFile, for_judging, hole_spans, read_held_out

SCENARIOS = Path(__file__).parents[1] / "scenarios"
LINES = (60, 600)  # of a held-out file with a region
MIN_CODE = 0.7  # share of a region's lines that are code


@dataclass(frozen=True)
class Scenario:
    """A file. typed: regions [start, end) to type again. quiet: offsets at which no suggestion should be shown."""

    path: str
    language: str
    text: str
    typed: tuple[tuple[int, int], ...]
    quiet: tuple[int, ...]


def read_scenarios(folder: Path = SCENARIOS) -> list[Scenario]:
    """All scenarios of a folder, by file name."""
    found = []
    for file in sorted(folder.glob("*.json")):
        value = json.loads(file.read_text())
        typed = tuple((int(start), int(end)) for start, end in value["typed"])
        found.append(Scenario(value["path"], value["language"], value["text"], typed, tuple(value["quiet"])))
    if not found:
        raise InputError(f"There is no scenario in {folder}; create one with --cut FILE.")
    return found


def held_out_scenarios(corpus: Path, language: str, count: int) -> list[Scenario]:
    """A scenario with one region from each of `count` held-out projects that no model was calibrated on."""
    projects: dict[str, list[HeldOutFile]] = defaultdict(list)
    for file in for_judging(read_held_out(corpus, [language])):
        if LINES[0] <= file.text.count("\n") <= LINES[1] and "test" not in file.path:
            projects[file.project].append(file)
    rng = random.Random(language)
    files = [file for name in sorted(projects) for file in rng.sample(projects[name], min(3, len(projects[name])))]
    found: dict[str, Scenario] = {}
    for file in rng.sample(files, len(files)):
        scenario = cut(file.path, file.text, language, regions=1)
        if scenario.typed and len(found) < count:
            found.setdefault(file.project, scenario)
    return [*found.values()]


def cut_file(file: Path) -> Scenario:
    """Raises InputError if Gesso does not know the language of the file."""
    language = detect(file.name)
    if language is None:
        raise InputError(f"Gesso does not know the language of {file}; choose another file.")
    return cut(file.as_posix(), file.read_text(), language)


def cut(path: str, text: str, language: str, regions: int = 2, lines: int = 9, quiet: int = 12) -> Scenario:
    """A scenario of a file: regions of indented lines, mostly code; quiet offsets inside words and after brackets."""
    rng = random.Random(f"0 {Path(path).name}")
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    code = [bisect_right(starts, span.start) - 1 for span in hole_spans(text, language, "line")]
    middle = [
        n
        for n in range(len(starts) // 4, len(starts) - lines - 2)
        if text[starts[n]] in " \t" and bisect_left(code, n + lines) - bisect_left(code, n) >= lines * MIN_CODE
    ]
    typed: list[tuple[int, int]] = []
    for first in rng.sample(middle, len(middle)):
        start, end = starts[first], starts[first + lines] - 1
        start += len(text[start:end]) - len(text[start:end].lstrip(" "))
        if all(end < other[0] or start > other[1] for other in typed):
            typed.append((start, end))
        if len(typed) == regions:
            break
    inside = [n for n in range(1, len(text) - 1) if text[n - 1].isalpha() and text[n].isalpha()]
    ends = [n for n in range(1, len(text)) if text[n] == "\n" and text[n - 1] in ")]}" and text[n - 2] != "("]
    offsets = rng.sample(inside, quiet // 2) + rng.sample(ends, min(len(ends), quiet - quiet // 2))
    return Scenario(path, language, text, tuple(sorted(typed)), tuple(sorted(offsets)))

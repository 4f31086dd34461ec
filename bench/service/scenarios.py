"""Scenarios of typing: real files with regions that are typed again. Must not know who types them or how."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError

SCENARIOS = Path(__file__).parents[1] / "scenarios"


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


def cut(file: Path, seed: int = 0, regions: int = 2, lines: int = 9, quiet: int = 12) -> Scenario:
    """A scenario of a file: regions of whole indented lines; quiet offsets inside words and after closing brackets."""
    text = file.read_text()
    rng = random.Random(f"{seed} {file.name}")
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    middle = [n for n in range(len(starts) // 4, len(starts) - lines - 2) if text[starts[n] : starts[n] + 4] == "    "]
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
    return Scenario(file.as_posix(), _language(file), text, tuple(sorted(typed)), tuple(sorted(offsets)))


def _language(file: Path) -> str:
    from infill.code.languages import detect

    language = detect(file.name)
    if language is None:
        raise InputError(f"Gesso does not know the language of {file}; choose another file.")
    return language

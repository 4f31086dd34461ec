"""Lines of real code that a user is typing, as requests. Shared by the benchmarks of speed and of the service.

Must not know who answers the requests.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError
from infill.code.languages import detect
from infill.request import Hole, InfillRequest
from train.corpus import read_corpus

ROOT = Path(__file__).parents[1]
FOLDERS = ("engine", "infill", "train", "bench", "tests")  # of this repository
LINES = (250, 350)  # of a file
MIDDLE = (1 / 3, 2 / 3)  # part of the file with the cursor
MIN_CODE = 12  # characters of a typed line


@dataclass(frozen=True)
class Source:
    """A file whose lines are typed again."""

    path: str
    text: str
    language: str | None


@dataclass(frozen=True)
class TypedLine:
    """A line [start, end) of `source` with its first `typed` characters already there."""

    source: Source
    start: int
    end: int
    typed: int

    def request(self, more: int) -> InfillRequest:
        """The request after `more` further characters, with nothing after the cursor on its line."""
        cursor = min(self.start + self.typed + more, self.end)
        text = self.source.text[:cursor] + self.source.text[self.end :]
        return InfillRequest(text, (Hole(cursor, cursor),), self.source.language, self.source.path, lines="one")


def sources(files: Sequence[Path]) -> list[Source]:
    """The files with LINES lines. A corpus shard (`.jsonl.gz`) gives its held-out files; without files, this repository
    is used. Raises InputError if no file is left."""
    default = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    found = [source for file in files or default for source in _read(file)]
    found = [source for source in found if LINES[0] <= source.text.count("\n") <= LINES[1]]
    if not found:
        raise InputError(f"No file has {LINES[0]} to {LINES[1]} lines; name others with --file.")
    return found


def _read(file: Path) -> list[Source]:
    if file.name.endswith(".jsonl.gz"):
        return [Source(row["path"], row["text"], row["language"]) for row in read_corpus(file, "valid")]
    try:
        text = file.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); name a source file or a corpus.") from error
    return [Source(file.name, text, detect(file.name, text.partition("\n")[0]))]


def typed_lines(found: Sequence[Source], count: int, seed: int) -> list[TypedLine]:
    """`count` lines of code from the middle of the files; a third of each is typed."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        source = found[number % len(found)] if count >= len(found) else rng.choice(found)
        lines = source.text.splitlines(keepends=True)
        middle = range(int(MIDDLE[0] * len(lines)), int(MIDDLE[1] * len(lines)))
        long = [index for index in middle if len(lines[index].strip()) >= MIN_CODE] or list(middle)
        index = rng.choice(long)
        line = lines[index].rstrip("\n")
        start = sum(len(line) for line in lines[:index])
        code = len(line.strip())
        made.append(TypedLine(source, start, start + len(line), len(line.rstrip()) - code + code // 3))
    return made

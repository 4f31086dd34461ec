"""Builds the lists of names that many projects use, from the training projects of the pocket model only.

`python -m train.lint.names --corpus DIR/corpus`. A name counts once per project. The lists are Bloom
filters (infill/lint/names.py), which do not reveal the text of the corpus.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from engine.errors import InputError
from infill.cli.support import errors_to_exit_codes
from infill.lint.names import FILE, MIN_WORD, Bloom, KnownNames, words_of

NAMES, WORDS, COMMON = 3, 4, 20  # projects that use a listed name, word, common word
_NAME = re.compile(r"[^\W\d]\w*")
_NOT_CODE = frozenset(("text",))


def names_by_project(corpus: Path) -> dict[str, set[str]]:
    """Every identifier in the training files of each project, comments and strings included. Raises InputError if there
    is no corpus."""
    shards = sorted(corpus.glob("files-*.jsonl.gz"))
    if not shards:
        raise InputError(f"There is no corpus in {corpus}; make one with `python -m train.corpus --out {corpus}`.")
    found: dict[str, set[str]] = defaultdict(set)
    for shard in track(shards, "names", console=Console(stderr=True), transient=True):
        with gzip.open(shard, "rt", encoding="utf-8") as lines:
            for record in map(json.loads, lines):
                if record["split"] == "train" and record["language"] not in _NOT_CODE:
                    found[record["project"]].update(_NAME.findall(record["text"]))
    return found


def known_names(projects: Mapping[str, Set[str]]) -> tuple[KnownNames, dict[str, int]]:
    """The lists, and the sizes of each."""
    names: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for identifiers in projects.values():
        names.update(name for name in identifiers if len(name) >= MIN_WORD)
        words.update({word for name in identifiers for word in words_of(name) if len(word) >= MIN_WORD})
    lists = _in_at_least(names, NAMES), _in_at_least(words, WORDS), _in_at_least(words, COMMON)
    sizes = dict(zip(("names", "words", "common"), map(len, lists), strict=True))
    return KnownNames(*map(Bloom.of, lists)), {"projects": len(projects), **sizes}


def _in_at_least(counts: Counter[str], projects: int) -> list[str]:
    return [name for name, count in counts.items() if count >= projects]


@errors_to_exit_codes
def main(
    corpus: Annotated[Path, typer.Option(help="Folder that train.corpus wrote.")],
) -> None:
    """Build the lists of known names for lint."""
    known, made = known_names(names_by_project(corpus))
    known.write(dict(made))
    Console(highlight=False).print(f"{FILE}: {FILE.stat().st_size:,} bytes, {made}")


if __name__ == "__main__":
    typer.run(main)

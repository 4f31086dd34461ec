"""Fixtures: a small corpus, and the shipped model on one thread."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from infill.complete.completion import Completer
from tests.infill.fakes import load_completer

SHAPES = '''\
"""Areas of shapes, with some words about them in several
lines that are no code."""

import math


class Circle:
    def __init__(self, radius):
        self.radius = radius  # in metres, not in feet
        self.colour = "red"

    def area(self):
        """Of the whole disc."""
        square = self.radius * self.radius
        return math.pi * square

    def grow(self, factor):
        # a comment of its own
        if factor > 1:
            self.radius = self.radius * factor
            self.colour = choose(
                self.colour,
                factor,
            )
        return self.radius
'''
SCRIPT = "export function add(one, other) {\n  const total = one + other;\n  return total;\n}\n"


def record(project: str, path: str, text: str, language: str = "python", split: str = "valid") -> dict[str, str]:
    return {"project": project, "path": path, "text": text, "language": language, "split": split}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A large and a small project in Python, one in JavaScript, and one that is not held out."""
    records = [record("large", f"large/part{number}.py", SHAPES) for number in range(5)]
    records += [record("small", "small/shapes.py", SHAPES.replace("Circle", "Ball").replace("\n", "\r\n"))]
    records += [record("web", "src/add.js", SCRIPT, "javascript")]
    records += [record("trained", "trained/secret.py", SHAPES.replace("radius", "secret"), split="train")]
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number, part in enumerate((records[:3], records[3:])):
        with gzip.open(folder / f"files-{number:03}.jsonl.gz", "wt", encoding="utf-8") as shard:
            shard.writelines(json.dumps(one) + "\n" for one in part)
    return folder


@pytest.fixture
def completer() -> Completer:
    return load_completer(threads=1, copy_drafts=False, causal_draft=False)

"""Holes in projects that were kept out of training, and the files of the project that stand beside them.

Reads a corpus that train.corpus wrote. Must not know a model or its tokens: every model is asked the same.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TypeVar

from engine.errors import InputError
from infill.code.syntax import Span, SyntaxTree, parse
from infill.request import Neighbour

ONE_LINE = ("token span", "rest of line", "line")
KINDS = (*ONE_LINE, "statement", "block")
LANGUAGES = ("python", "javascript", "typescript", "go", "rust", "java", "c", "cpp")

LEAST_LINE = 8  # characters of code in a line that a hole is cut into
MOST_LINE, MOST_LINES = 100, 400  # characters of a truth: of one line, of a statement or block
BLOCK_LINES = (2, 12)
SPAN_WORDS = 6
NEIGHBOURS = 3
NEAR_BEFORE, NEAR_AFTER = 1200, 600  # characters around a hole whose names choose its neighbours

_BODIES = frozenset(("block", "statement_block", "compound_statement", "constructor_body"))
_NO_HOLES = frozenset(("attribute_item", "inner_attribute_item", "package_clause", "package_declaration"))
_WORD = re.compile(r"\w+|[^\w\s]")
_INK = re.compile(r"\w")
_NAME = re.compile(r"[^\W\d]\w{2,}")

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class HeldOutFile:
    """A file of a project that no model was trained on; its text has "\\n" line ends."""

    project: str
    path: str
    language: str
    text: str

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(_NAME.findall(self.text))


@dataclass(frozen=True)
class HeldOutHole:
    """before + truth + after is the file. The truth of a line, statement or block has no line end at its end."""

    language: str
    kind: str
    project: str
    path: str
    before: str
    truth: str
    after: str

    @property
    def one_line(self) -> bool:
        return self.kind in ONE_LINE


def read_held_out(corpus: Path, languages: Sequence[str]) -> list[HeldOutFile]:
    """The validation files in these languages. Raises InputError where there is no corpus, or nothing held out."""
    shards = sorted(corpus.glob("files-*.jsonl.gz"))
    if not shards:
        raise InputError(f"There is no corpus in {corpus}; make one with `python -m train.corpus --out {corpus}`.")
    files = []
    for shard in shards:
        try:
            with gzip.open(shard, "rt", encoding="utf-8") as lines:
                for record in map(json.loads, lines):
                    if record["split"] == "valid" and record["language"] in languages:
                        text = record["text"].replace("\r\n", "\n")
                        files.append(HeldOutFile(record["project"], record["path"], record["language"], text))
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{shard} is no part of a corpus ({error}); make it again with train.corpus.") from error
    missing = [name for name in languages if all(file.language != name for file in files)]
    if missing:
        raise InputError(f"The corpus in {corpus} has no held-out files in {', '.join(missing)}; ask for others.")
    return files


def is_for_calibration(project: str) -> bool:
    """About half of the held-out projects, by a hash of the name: confidence is learnt from these, judged on others."""
    return hashlib.sha256(project.encode()).digest()[0] % 2 == 0


def for_judging(files: Sequence[HeldOutFile]) -> list[HeldOutFile]:
    """Those of projects that confidence was not learnt from; of a language that has no others, all."""
    others = {file.language for file in files if not is_for_calibration(file.project)}
    return [file for file in files if file.language not in others or not is_for_calibration(file.project)]


def cut_holes(files: Sequence[HeldOutFile], language: str, kind: str, count: int, seed: int) -> list[HeldOutHole]:
    """At most `count` holes, in turns from every project and within it from every file, so that none outweighs
    the others before they are used up.

    They follow from the seed, the language and the kind alone; a larger count only adds to them.
    """
    rng = random.Random(f"{seed}/{language}/{kind}")
    projects: dict[str, list[HeldOutFile]] = defaultdict(list)
    for file in sorted(files, key=lambda file: (file.project, file.path)):
        if file.language == language:
            projects[file.project].append(file)
    turns = []
    for own in _shuffled([*projects.values()], rng):
        turns.append(_in_turns([_holes_in(file, kind, rng) for file in _shuffled(own, rng)]))
    return list(islice(_in_turns(turns), count))


def _shuffled(items: Sequence[Item], rng: random.Random) -> list[Item]:
    return rng.sample(items, len(items))


def _in_turns(sources: Sequence[Iterator[HeldOutHole]]) -> Iterator[HeldOutHole]:
    """One from each, again and again; a source that has no more drops out."""
    waiting = deque(sources)
    while waiting:
        source = waiting.popleft()
        hole = next(source, None)
        if hole is not None:
            yield hole
            waiting.append(source)


def _holes_in(file: HeldOutFile, kind: str, rng: random.Random) -> Iterator[HeldOutHole]:
    """The holes of one kind in a file, in random order, one a line or node; the file is parsed for the first."""
    for place in _shuffled(places(file.text, file.language, kind), rng):
        start, end = _within(file.text, place, kind, rng)
        truth = file.text[start:end]
        if _INK.search(truth):
            yield HeldOutHole(file.language, kind, file.project, file.path, file.text[:start], truth, file.text[end:])


def _within(text: str, place: Span, kind: str, rng: random.Random) -> Span:
    """A part of the line, from a place where one may type on, or whole words and signs; else all of it."""
    first = place.end - len(text[place.start : place.end].lstrip())
    if kind == "rest of line":
        return Span(rng.randint(first + 2, place.end - 3), place.end)
    if kind == "token span":
        words = [match.span() for match in _WORD.finditer(text, first, place.end)]
        length = rng.randint(1, max(1, min(SPAN_WORDS, len(words) - 1)))
        start = rng.randint(0, len(words) - length)
        return Span(words[start][0], words[start + length - 1][1])
    return place


def places(text: str, language: str, kind: str) -> list[Span]:
    """Where holes may be cut: from a line's start to a line's end, free of comments, docstrings and long strings."""
    tree = parse(text, language)
    if tree is None:
        return []
    hidden, statements, bodies = _read(tree)
    found = {"statement": statements, "block": bodies}.get(kind, list(_lines(text)))
    starts = [span.start for span in hidden]

    def is_code(span: Span) -> bool:
        last = bisect_left(starts, span.end) - 1
        return last < 0 or hidden[last].end <= span.start

    return [span for span in found if is_code(span)]


def _lines(text: str) -> Iterator[Span]:
    start = 0
    for line in text.split("\n"):
        if LEAST_LINE <= len(line.strip()) <= MOST_LINE:
            yield Span(start, start + len(line.rstrip()))
        start += len(line) + 1


def _read(tree: SyntaxTree) -> tuple[list[Span], list[Span], list[Span]]:
    """What is no code (in text order, apart from each other), statements without others in them, and bodies.

    Like the spans that train.prepare makes holes of, statements and bodies stand on lines of their own; of a body
    in braces the inside counts.
    """
    language, text = tree.language, tree.text
    hidden: list[Span] = []
    outer: list[tuple[str, Span]] = []  # each before what stands in it
    pending = [tree.root]
    while pending:
        node = pending.pop()
        is_text = node.type in language.strings and node.start_point[0] != node.end_point[0]
        if node.type == "expression_statement":
            is_text = [child.type for child in node.named_children if child.type not in language.strings] == []
        if is_text or node.type in language.comments:
            hidden.append(tree.span(node))
            continue
        if language.is_statement(node.type) or node.type in language.blocks:
            outer.append((node.type, tree.span(node)))
        pending.extend(reversed(node.children))
    statements, bodies = [], []
    for index, (name, span) in enumerate(outer):
        holds_more = index + 1 < len(outer) and outer[index + 1][1].start < span.end
        if name in _BODIES:
            lines = _whole_lines(text, _inside(text, span))
            if lines and BLOCK_LINES[0] <= _inked_lines(text, lines) <= BLOCK_LINES[1]:
                bodies.append(lines)
        elif not holds_more and name not in _NO_HOLES and name not in language.blocks:
            lines = _whole_lines(text, span)
            if lines and _inked_lines(text, lines) <= BLOCK_LINES[1]:
                statements.append(lines)
    return hidden, statements, bodies


def _inside(text: str, span: Span) -> Span:
    if text.startswith("{", span.start) and text.endswith("}", 0, span.end):
        return Span(span.start + 1, span.end - 1)
    return span


def _whole_lines(text: str, span: Span) -> Span | None:
    """The span from its first line's start to its last line's end, None where it shares them or is too long."""
    inked = text[span.start : span.end]
    first, last = span.end - len(inked.lstrip()), span.start + len(inked.rstrip())
    start = text.rfind("\n", 0, first) + 1
    if last - first > MOST_LINES or last <= first or text[start:first].strip():
        return None
    return Span(start, last) if last == len(text) or text[last] == "\n" else None


def _inked_lines(text: str, span: Span) -> int:
    return sum(bool(line.strip()) for line in text[span.start : span.end].split("\n"))


class Neighbourhood:
    """The other files of each project, for the requests that show them."""

    def __init__(self, files: Sequence[HeldOutFile]) -> None:
        self.files: dict[tuple[str, str], list[HeldOutFile]] = defaultdict(list)
        for file in files:
            self.files[file.project, file.language].append(file)

    def of(self, hole: HeldOutHole) -> tuple[Neighbour, ...]:
        """At most NEIGHBOURS: those of its folder first, then those with the most names in common with the text
        near the hole."""
        near = {*_NAME.findall(hole.before[-NEAR_BEFORE:]), *_NAME.findall(hole.after[:NEAR_AFTER])}
        folder = PurePosixPath(hole.path).parent

        def rank(file: HeldOutFile) -> tuple[bool, int, str]:
            return PurePosixPath(file.path).parent != folder, -len(near & file.names), file.path

        others = [file for file in self.files[hole.project, hole.language] if file.path != hole.path]
        return tuple(Neighbour(file.path, file.text) for file in sorted(others, key=rank)[:NEIGHBOURS])

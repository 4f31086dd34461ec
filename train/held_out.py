"""Cuts holes into projects that were kept out of training, and picks the neighbouring files of a hole.

Reads a corpus written by train.corpus. Must not know a model or its tokens, so that every model gets the same holes.
"""

from __future__ import annotations

import hashlib
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
from train.corpus import read_corpus

ONE_LINE = ("token span", "rest of line", "line")
KINDS = (*ONE_LINE, "statement", "block")
LANGUAGES = ("python", "javascript", "typescript", "go", "rust", "java", "c", "cpp")

MIN_LINE, MAX_LINE = 8, 100  # characters of code in a line with a hole
MAX_LINES = 400  # characters of a statement or block
BLOCK_LINES = (2, 12)
SPAN_WORDS = 6
NEIGHBOURS = 3
NEAR_BEFORE, NEAR_AFTER = 1200, 600  # characters around a hole whose names rank its neighbours

_BODIES = frozenset(("block", "statement_block", "compound_statement", "constructor_body"))
_NO_HOLES = frozenset(("attribute_item", "inner_attribute_item", "package_clause", "package_declaration"))
_WORD = re.compile(r"\w+|[^\w\s]")
_WORD_CHARACTER = re.compile(r"\w")
_NAME = re.compile(r"[^\W\d]\w{2,}")

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class HeldOutFile:
    """A file of a held-out project. Its text has "\\n" line ends."""

    project: str
    path: str
    language: str
    text: str

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(_NAME.findall(self.text))


@dataclass(frozen=True)
class HeldOutHole:
    """before + truth + after is the file. The truth does not end with a line end."""

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
    """The validation files in these languages. Raises InputError without a corpus, or without such files."""
    files = []
    for record in read_corpus(corpus, "valid"):
        if record["language"] in languages:
            text = record["text"].replace("\r\n", "\n")
            files.append(HeldOutFile(record["project"], record["path"], record["language"], text))
    missing = [name for name in languages if all(file.language != name for file in files)]
    if missing:
        raise InputError(
            f"The corpus in {corpus} has no held-out files in {', '.join(missing)}; choose other languages."
        )
    return files


def is_for_calibration(project: str) -> bool:
    """Selects about half of the held-out projects, by a hash of the name. The others are for measuring."""
    return hashlib.sha256(project.encode()).digest()[0] % 2 == 0


def for_judging(files: Sequence[HeldOutFile]) -> list[HeldOutFile]:
    """Files of projects not used for calibration; all files of a language that has no such project."""
    others = {file.language for file in files if not is_for_calibration(file.project)}
    return [file for file in files if file.language not in others or not is_for_calibration(file.project)]


def cut_holes(files: Sequence[HeldOutFile], language: str, kind: str, count: int, seed: int) -> list[HeldOutHole]:
    """At most `count` holes. Projects take turns, and within a project its files, so that none dominates.

    The holes depend on seed, language and kind only. A larger count adds holes and changes none.
    """
    rng = random.Random(f"{seed}/{language}/{kind}")
    projects: dict[str, list[HeldOutFile]] = defaultdict(list)
    for file in sorted(files, key=lambda file: (file.project, file.path)):
        if file.language == language:
            projects[file.project].append(file)
    turns = []
    for members in _shuffled([*projects.values()], rng):
        turns.append(_in_turns([_holes_in(file, kind, rng) for file in _shuffled(members, rng)]))
    return list(islice(_in_turns(turns), count))


def _shuffled(items: Sequence[Item], rng: random.Random) -> list[Item]:
    return rng.sample(items, len(items))


def _in_turns(sources: Sequence[Iterator[HeldOutHole]]) -> Iterator[HeldOutHole]:
    """One hole from each source in turn, until all sources are used up."""
    waiting = deque(sources)
    while waiting:
        source = waiting.popleft()
        hole = next(source, None)
        if hole is not None:
            yield hole
            waiting.append(source)


def _holes_in(file: HeldOutFile, kind: str, rng: random.Random) -> Iterator[HeldOutHole]:
    """The holes of one kind in a file, one per line or node, in random order."""
    for span in _shuffled(hole_spans(file.text, file.language, kind), rng):
        start, end = _within(file.text, span, kind, rng)
        truth = file.text[start:end]
        if _WORD_CHARACTER.search(truth):
            yield HeldOutHole(file.language, kind, file.project, file.path, file.text[:start], truth, file.text[end:])


def _within(text: str, span: Span, kind: str, rng: random.Random) -> Span:
    """The hole within a span: a rest of the line, a run of words and signs, or all of it."""
    first = span.end - len(text[span.start : span.end].lstrip())
    if kind == "rest of line":
        return Span(rng.randint(first + 2, span.end - 3), span.end)
    if kind == "token span":
        words = [match.span() for match in _WORD.finditer(text, first, span.end)]
        length = rng.randint(1, max(1, min(SPAN_WORDS, len(words) - 1)))
        start = rng.randint(0, len(words) - length)
        return Span(words[start][0], words[start + length - 1][1])
    return span


def hole_spans(text: str, language: str, kind: str) -> list[Span]:
    """Spans for holes: whole lines without comments, docstrings and multi-line strings."""
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
        if MIN_LINE <= len(line.strip()) <= MAX_LINE:
            yield Span(start, start + len(line.rstrip()))
        start += len(line) + 1


def _read(tree: SyntaxTree) -> tuple[list[Span], list[Span], list[Span]]:
    """(spans that are not code, innermost statements, bodies), each in text order.

    As in train.prepare, statements and bodies have lines of their own, and a body in braces is the part inside them.
    """
    language, text = tree.language, tree.text
    hidden: list[Span] = []
    nodes: list[tuple[str, Span]] = []  # each before the ones inside it
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
            nodes.append((node.type, tree.span(node)))
        pending.extend(reversed(node.children))
    statements, bodies = [], []
    for index, (name, span) in enumerate(nodes):
        has_inner = index + 1 < len(nodes) and nodes[index + 1][1].start < span.end
        if name in _BODIES:
            lines = _whole_lines(text, _inside(text, span))
            if lines and BLOCK_LINES[0] <= _code_lines(text, lines) <= BLOCK_LINES[1]:
                bodies.append(lines)
        elif not has_inner and name not in _NO_HOLES and name not in language.blocks:
            lines = _whole_lines(text, span)
            if lines and _code_lines(text, lines) <= BLOCK_LINES[1]:
                statements.append(lines)
    return hidden, statements, bodies


def _inside(text: str, span: Span) -> Span:
    if text.startswith("{", span.start) and text.endswith("}", 0, span.end):
        return Span(span.start + 1, span.end - 1)
    return span


def _whole_lines(text: str, span: Span) -> Span | None:
    """The span extended to whole lines; None if other code shares its lines, or if it is too long."""
    inside = text[span.start : span.end]
    first, last = span.end - len(inside.lstrip()), span.start + len(inside.rstrip())
    start = text.rfind("\n", 0, first) + 1
    if last - first > MAX_LINES or last <= first or text[start:first].strip():
        return None
    return Span(start, last) if last == len(text) or text[last] == "\n" else None


def _code_lines(text: str, span: Span) -> int:
    return sum(bool(line.strip()) for line in text[span.start : span.end].split("\n"))


class Neighbourhood:
    """The files of each project, from which a request takes its neighbours."""

    def __init__(self, files: Sequence[HeldOutFile]) -> None:
        self.files: dict[tuple[str, str], list[HeldOutFile]] = defaultdict(list)
        for file in files:
            self.files[file.project, file.language].append(file)

    def of(self, hole: HeldOutHole) -> tuple[Neighbour, ...]:
        """At most NEIGHBOURS files: those of the same folder first, then those that share the most names with the text
        near the hole."""
        near = {*_NAME.findall(hole.before[-NEAR_BEFORE:]), *_NAME.findall(hole.after[:NEAR_AFTER])}
        folder = PurePosixPath(hole.path).parent

        def rank(file: HeldOutFile) -> tuple[bool, int, str]:
            return PurePosixPath(file.path).parent != folder, -len(near & file.names), file.path

        others = [file for file in self.files[hole.project, hole.language] if file.path != hole.path]
        return tuple(Neighbour(file.path, file.text) for file in sorted(others, key=rank)[:NEIGHBOURS])

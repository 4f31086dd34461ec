"""The methods that are judged: the shipped pipeline and the baselines it is compared with on the same holes.

Each is a `Method`: questions in, attempts out. Must not know whether an attempt is right. Two baselines get a part of
the truth: its number of tokens (true length) or of lines (copy).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Protocol

import torch

from engine.autoregressive import decode_greedily
from engine.denoiser import StepCallback
from engine.errors import GessoError, InputError
from infill.checks.checks import first_refusal
from infill.checks.context import CheckContext
from infill.code.brackets import scan
from infill.code.indentation import column_width
from infill.complete.completion import Completer
from infill.complete.hole_length import FilledCanvas, FillTask
from infill.complete.pipeline import AnyCompleter
from infill.complete.prepared import prepare
from infill.prompts.prompt import Layout
from infill.request import Hole, InfillRequest, InfillResult, Lines, Neighbour
from train.held_out import KINDS, ONE_LINE, HeldOutHole

FIXED_SLOTS = 16
CAUSAL_LIMIT = 96  # tokens
LONGEST_MATCH = 4000  # characters


@dataclass(frozen=True)
class Question:
    """A hole and its request: for one line, or for a statement or block of any number of lines."""

    hole: HeldOutHole
    request: InfillRequest

    @staticmethod
    def of(hole: HeldOutHole, neighbours: tuple[Neighbour, ...] = ()) -> Question:
        at = len(hole.before)
        lines: Lines = "one" if hole.one_line else "block"
        request = InfillRequest(
            hole.before + hole.after, (Hole(at, at),), hole.language, hole.path, lines, neighbours=neighbours
        )
        return Question(hole, request)


@dataclass(frozen=True)
class Attempt:
    """The text that a method wrote for a hole.

    shown: whether a user would see it. reason: why not. confidence: 0 to 1, None if the method has none. ms: time of
    this hole, or its share of a batch. best_passing: confidence and text of the candidate that a threshold of 0 would
    show; None if the other checks refuse all candidates.
    """

    text: str
    shown: bool
    reason: str | None
    confidence: float | None
    source: str
    steps: int
    ms: float
    best_passing: tuple[float, str] | None = None


class Method(Protocol):
    """name: in tables. kinds: of holes it can fill. neighbours: whether its requests contain other files."""

    name: str
    kinds: tuple[str, ...]
    neighbours: bool

    def fill(self, questions: Sequence[Question]) -> list[Attempt]:
        """One attempt per question."""
        ...


class Pipeline:
    """The completer as shipped. All questions form one batch; the prompt cache is cleared before each batch."""

    def __init__(
        self, name: str, completer: AnyCompleter, neighbours: bool = False, kinds: tuple[str, ...] = KINDS
    ) -> None:
        self.name, self.completer, self.neighbours, self.kinds = name, completer, neighbours, kinds

    def fill(self, questions: Sequence[Question]) -> list[Attempt]:
        self.completer.model.decoder.cache.clear()
        started = time.perf_counter()
        results = self.completer.complete_batch([question.request for question in questions])
        ms = 1000 * (time.perf_counter() - started) / len(questions)
        return [_attempt(question, result, ms) for question, result in zip(questions, results, strict=True)]


def _attempt(question: Question, result: InfillResult | GessoError, ms: float) -> Attempt:
    if isinstance(result, GessoError):
        return Attempt("", False, str(result), None, "none", 0, ms)
    best = result.completions[0]
    passing = None
    for candidate in sorted(best.candidates, key=lambda candidate: -candidate.confidence):
        context = CheckContext(question.hole.before, candidate.text, question.hole.after, question.hole.language)
        if candidate.shown or first_refusal(context) is None:
            passing = candidate.confidence, candidate.text
            break
    source = best.candidates[0].source
    return Attempt(best.text, best.shown, best.reason, best.confidence, source, result.steps, ms, passing)


class GivenLengths:
    """Replaces `infill.complete.hole_length.HoleLengths`: the number of slots is given, and no slot may stay empty.

    truths: one text per coming task, whose number of tokens is laid out; None for FIXED_SLOTS.
    """

    def __init__(self, completer: Completer) -> None:
        self.runner, self.family = completer.runner, completer.family
        self.truths: Sequence[str] | None = None

    def fill(self, tasks: Sequence[FillTask], on_step: StepCallback | None = None) -> list[FilledCanvas]:
        truths = [None] * len(tasks) if self.truths is None else self.truths
        layouts = [self._lay_out(task, truth) for task, truth in zip(tasks, truths, strict=True)]
        requests = [task.request(layout) for task, layout in zip(tasks, layouts, strict=True)]
        results = self.runner.run(requests, on_step)
        return [
            FilledCanvas(layout, request, result, result.steps, result.encoded_tokens)
            for layout, request, result in zip(layouts, requests, results, strict=True)
        ]

    def _lay_out(self, task: FillTask, truth: str | None) -> Layout:
        slots = FIXED_SLOTS
        if truth is not None:
            typed = task.lay_out(task.slots).holes[0].healed
            slots = len(self.family.tokens.encode(typed + truth))
        layout = task.lay_out((slots,))
        null = [] if self.family.null_token is None else [self.family.null_token]
        return replace(layout, banned=torch.cat((layout.banned, torch.tensor(null, dtype=torch.long))))


class TrueLength(Pipeline):
    """The canvas with as many slots as tokens are missing."""

    name = "true length"

    def __init__(self, completer: Completer, neighbours: bool) -> None:
        super().__init__(self.name, completer, neighbours)
        self.lengths = GivenLengths(completer)
        completer.lengths = self.lengths

    def fill(self, questions: Sequence[Question]) -> list[Attempt]:
        self.lengths.truths = [question.hole.truth for question in questions]
        return super().fill(questions)


class FixedLength(Pipeline):
    """The canvas with FIXED_SLOTS slots for every hole."""

    name = "fixed length"

    def __init__(self, completer: Completer, neighbours: bool) -> None:
        super().__init__(self.name, completer, neighbours, ONE_LINE)
        completer.lengths = GivenLengths(completer)


class Causal:
    """Greedy decoding by the causal encoder of the same weights.

    The prompt family lays out the prompt (suffix, then prefix), and `completed` decides where a text ends, so this
    baseline knows the kind of the hole. One question at a time. No checks: everything it writes is shown.
    """

    name = "causal"
    kinds: tuple[str, ...] = KINDS

    def __init__(self, completer: Completer, neighbours: bool) -> None:
        self.family, self.denoiser, self.neighbours = completer.family, completer.denoiser, neighbours

    def fill(self, questions: Sequence[Question]) -> list[Attempt]:
        """Raises InputError if the encoder was not trained to fill in the middle."""
        self.denoiser.cache.clear()
        return [self._write(question) for question in questions]

    def _write(self, question: Question) -> Attempt:
        started = time.perf_counter()
        work = prepare(question.request, self.family.budget)
        prompt = self.family.causal_prompt(work.shown, work.kinds[0])
        if prompt is None:
            raise InputError("This model's causal encoder was not trained to fill holes; leave out --baseline causal.")
        read, typed, hole = self.family.tokens.decode, prompt.typed, question.hole
        tokens, scores = decode_greedily(
            self.denoiser.model,
            self.denoiser.cache,
            prompt.tokens,
            CAUSAL_LIMIT,
            lambda tokens: completed(read(tokens).removeprefix(typed), hole) is not None,
            torch.tensor(prompt.banned),
            prompt.first,
        )
        text = read(tokens).removeprefix(typed)
        whole = completed(text, hole)
        confidence = float(torch.tensor(scores).mean().exp())
        ms = 1000 * (time.perf_counter() - started)
        return _unchecked(text if whole is None else whole, confidence, "causal", len(tokens), ms)


class Copy:
    """Copies the text that follows the longest match of the text before the hole, in the file or its neighbours.

    It knows the truth's number of lines. No checks: everything it finds is shown.
    """

    name = "copy"
    kinds: tuple[str, ...] = KINDS

    def __init__(self, neighbours: bool) -> None:
        self.neighbours = neighbours

    def fill(self, questions: Sequence[Question]) -> list[Attempt]:
        attempts = []
        for question in questions:
            started = time.perf_counter()
            hole = question.hole
            text = after_longest_match(hole, [neighbour.text for neighbour in question.request.neighbours])
            if hole.one_line:
                whole = completed(text, hole)
                text = text if whole is None else whole
            else:
                text = "\n".join(text.split("\n")[: hole.truth.count("\n") + 1])
            attempts.append(_unchecked(text, None, "copy", 0, 1000 * (time.perf_counter() - started)))
        return attempts


def _unchecked(text: str, confidence: float | None, source: str, steps: int, ms: float) -> Attempt:
    shown = bool(text.strip())
    passing = (confidence, text) if shown and confidence is not None else None
    return Attempt(text, shown, None if shown else "nothing was written", confidence, source, steps, ms, passing)


def after_longest_match(hole: HeldOutHole, neighbours: Sequence[str]) -> str:
    """All text after the longest match of the end of `hole.before`: above the hole (nearest first), else below it, else
    in a neighbour. Empty if not even one character matches."""
    length, best = 0, ""
    for index, source in enumerate((hole.before, hole.after, *neighbours)):
        searched = source[:-1] if index == 0 else source
        found = _longest_suffix(hole.before, searched)
        if found > length:
            suffix = hole.before[-found:]
            at = searched.rfind(suffix) if index == 0 else searched.find(suffix)
            length, best = found, source[at + found :]
    return best


def _longest_suffix(text: str, source: str) -> int:
    """Length of the longest suffix of `text` that occurs in `source`."""
    low, high = 0, min(len(text), LONGEST_MATCH)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text[-middle:] in source else (low, middle - 1)
    return low


def completed(text: str, hole: HeldOutHole) -> str | None:
    """The part of `text` that fills the hole; None if its end is not reached yet.

    One-line holes end with the line; a token span also where the rest of its line follows. Statements and blocks end
    where the indentation falls below that of their first line, or where the next line of the file follows; a statement
    also at the next line with its indentation while no bracket is open.
    """
    if not hole.one_line:
        return _completed_lines(text, hole)
    blank = len(text) - len(text.lstrip()) if hole.kind == "line" else 0
    end = text.find("\n", blank)
    line = text if end < 0 else text[:end]
    rest = hole.after.partition("\n")[0].strip() if hole.kind == "token span" else ""
    at = line.find(rest) if rest else -1
    while at >= 0:
        if _closed(line[:at], hole.language):
            return line[:at]
        at = line.find(rest, at + 1)
    return None if end < 0 else line


def _completed_lines(text: str, hole: HeldOutHole) -> str | None:
    lines, base = text.split("\n"), None
    next_line = next((line.rstrip() for line in hole.after.split("\n") if line.strip()), None)
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        indentation, above = column_width("".join(takewhile(str.isspace, line))), "\n".join(lines[:number])
        ends = number < len(lines) - 1 and line.rstrip() == next_line
        if base is not None:
            ends = ends or indentation < base
            ends = ends or (hole.kind == "statement" and indentation == base and _closed(above, hole.language))
        if ends:
            return above
        base = indentation if base is None else base
    return None


def _closed(text: str, language: str) -> bool:
    reading = scan(text, language)
    return not (reading.open or reading.stray or reading.inside)

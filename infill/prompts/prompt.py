"""From shown text to a prompt and a canvas: the interface of all prompt families, and what they share.

Must not know how canvases are denoised, how results are judged, or which families there are.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.canvas import Canvas, Known, Slots
from infill.code.context import ContextBudget, ShownContext
from infill.prompts.text_tokens import TextTokens


@dataclass(frozen=True)
class HoleKind:
    """one_line: without a line break. whole_lines: the filling ends in a line break, which is not on the canvas."""

    one_line: bool
    whole_lines: bool


@dataclass(frozen=True)
class HoleColumns:
    """Columns [start, stop) of the canvas. healed: text at the front of the hole that was typed already."""

    start: int
    stop: int
    healed: str


@dataclass(frozen=True)
class Layout:
    """The engine's input. banned [n]: token ids that must not appear in a hole."""

    prompt: list[int]
    canvas: Canvas
    holes: tuple[HoleColumns, ...]
    banned: Tensor


@dataclass(frozen=True)
class TypedToken:
    """The text of the last token before a hole, which moves into it; choices [n]: the tokens that begin with it."""

    text: str
    choices: Tensor


@dataclass(frozen=True)
class LayoutPlan:
    """The layouts of one request, which differ in the number of slots only.

    runs: the known tokens of the canvas before, between and after the holes. typed: per hole. banned: as in `Layout`.
    """

    prompt: list[int]
    runs: tuple[list[int], ...]
    typed: tuple[TypedToken | None, ...]
    banned: Tensor

    def lay_out(self, slots: Sequence[int], draft: Sequence[int | None] = ()) -> Layout:
        """slots: per hole. draft: tokens that the first hole starts with, None for noise."""
        parts: list[Known | Slots] = []
        columns: list[HoleColumns] = []
        allowed: dict[int, Tensor] = {}
        at = 0
        for run, typed, count in zip(self.runs, self.typed, slots, strict=False):
            at += len(run)
            if typed is not None:
                allowed[at] = typed.choices
            columns.append(HoleColumns(at, at + count, "" if typed is None else typed.text))
            parts += [Known(run), Slots(count, draft)]
            at, draft = at + count, ()
        canvas = Canvas.of(*parts, Known(self.runs[-1]), allowed=allowed)
        return Layout(self.prompt, canvas, tuple(columns), self.banned)


@dataclass(frozen=True)
class CausalPrompt:
    """A prompt that the causal encoder continues to fill a hole. banned: token ids it must not write.

    typed: text before the hole that the continuation repeats. first [n]: the allowed first tokens; None for all.
    """

    tokens: list[int]
    typed: str
    first: Tensor | None
    banned: tuple[int, ...]


@dataclass(frozen=True)
class InstructionPrompt:
    """An instruction in words. The answer follows `tokens` and ends at one of `ends`; banned: as in CausalPrompt."""

    tokens: list[int]
    ends: tuple[int, ...]
    banned: tuple[int, ...]


class Family(Protocol):
    """The prompt format of one family of models.

    null_token: the token of an empty slot; None if the model has none, so that lengths are probed. grows: whether the
    denoiser changes the lengths of holes itself.
    max_canvas: the widest canvas of one denoising. slots: default number of slots for (a line, a block).
    """

    tokens: TextTokens
    max_canvas: int
    slots: tuple[int, int]
    budget: ContextBudget
    grows: bool

    @property
    def null_token(self) -> int | None: ...

    def plan(self, context: ShownContext, holes: Sequence[HoleKind], between: Sequence[str]) -> LayoutPlan:
        """Encodes the text of a request. between: the texts between consecutive holes."""
        ...

    def causal_prompt(self, context: ShownContext, hole: HoleKind) -> CausalPrompt | None:
        """For filling a single hole token by token; None if the encoder is not trained for it."""
        ...

    def instruction_prompt(self, text: str) -> InstructionPrompt | None:
        """None if the model does not follow instructions."""
        ...


def anchor(prefix: Sequence[int], line_breaks: Set[int], near: int, lines: int = 4, least: int = 12) -> int:
    """The index in the tokens before the first hole where the canvas begins, at most `near` tokens from the end.

    The last line break whose number is a multiple of `lines` and that leaves `least` tokens, so that it rarely moves
    while the user types; else another line break or a multiple of 16.
    """
    breaks = [index for index, token in enumerate(prefix) if token in line_breaks]
    earliest = max(0, len(prefix) - near)
    reachable = [index for index in breaks if index <= len(prefix) - least]
    steps = [index for index in breaks[lines - 1 :: lines] if index <= len(prefix) - least]
    if (last := steps[-1] if steps else 0) >= earliest:
        return last
    close = [index for index in reachable if index >= earliest]
    return close[0] if close else min(-(-earliest // 16) * 16, max(earliest, len(prefix) - 1))


def split_suffix(suffix: list[int], line_breaks: Set[int], near: int, far: int) -> tuple[list[int], list[int]]:
    """At most `near` tokens for the canvas and `far` for the prompt, cut at a line break if there is one."""
    if len(suffix) <= near:
        return suffix, []
    breaks = [index for index in range(near // 4, near + 1) if suffix[index] in line_breaks]
    cut = breaks[-1] if breaks else near
    return suffix[:cut], suffix[cut : cut + far]


def cut_front(tokens: list[int], limit: int, line_breaks: Set[int], step: int = 64) -> list[int]:
    """The last tokens, at most `limit`. The cut moves by `step` tokens at a time, then on to a line break."""
    if len(tokens) <= limit:
        return tokens
    first = min(len(tokens), -(-(len(tokens) - limit) // step) * step)
    breaks = (index for index in range(first, min(first + step, len(tokens))) if tokens[index] in line_breaks)
    return tokens[next(breaks, first) :]


def plan_canvas(
    tokens: TextTokens,
    lead: Sequence[int],
    prefix: Sequence[int],
    holes: Sequence[HoleKind],
    runs: Sequence[Sequence[int]],
    prompt: list[int],
    banned: Sequence[int],
) -> LayoutPlan:
    """The canvas has `lead`, `prefix`, then each hole and the run of tokens that follows it.

    Token healing: if the token before a hole is the beginning of a longer one, it moves into the hole, whose first
    token must then begin with its text.
    """
    known = [[*lead, *prefix], *([*run] for run in runs)]
    typed = []
    for index, hole in enumerate(holes):
        floor = len(lead) if index == 0 else 0
        typed.append(typed_token(tokens, known[index][floor:], hole.one_line))
        if typed[-1] is not None:
            known[index].pop()
    return LayoutPlan(prompt, tuple(known), tuple(typed), torch.tensor(banned, dtype=torch.long))


def typed_token(tokens: TextTokens, before: Sequence[int], one_line: bool) -> TypedToken | None:
    """The last token of `before` and the tokens that begin with it; None if none is longer.

    For a hole of one line, tokens with more line breaks than that text are left out.
    """
    text = tokens.decode(before[-1:])
    if not text or "\ufffd" in text:
        return None
    choices = tokens.starting_with(text, text.count("\n") if one_line else None)
    return TypedToken(text, choices) if len(choices) > 1 and bool((choices == before[-1]).any()) else None


def suffix_texts(holes: Sequence[HoleKind], texts: Sequence[str]) -> list[str]:
    """The text after each hole on the canvas; for a hole of whole lines it begins with the line break that ends it."""
    return ["\n" + text if hole.whole_lines else text for hole, text in zip(holes, texts, strict=True)]

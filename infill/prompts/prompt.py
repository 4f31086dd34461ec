"""From shown text to a prompt and a canvas: the interface of all prompt families, and what they share.

Must not know how canvases are denoised, how results are judged, or which families there are.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from engine.canvas import Canvas, Hole, Known
from infill.code.context import ContextBudget, ShownContext
from infill.prompts.text_tokens import TextTokens


@dataclass(frozen=True)
class TextHole:
    """A hole on the canvas. one_line: it must not contain a line break; whole_lines: it stands between lines,
    and what fills it ends in a line break, which the canvas does not show."""

    one_line: bool
    whole_lines: bool


@dataclass(frozen=True)
class HoleColumns:
    """Where a hole stands on the canvas: columns [start, stop). `healed` text at its front was already
    typed."""

    start: int
    stop: int
    healed: str


@dataclass(frozen=True)
class Layout:
    """What the engine is given. `banned` token ids no hole may take."""

    prompt: list[int]
    canvas: Canvas
    holes: tuple[HoleColumns, ...]
    banned: tuple[int, ...]


@dataclass(frozen=True)
class CausalPrompt:
    """What the causal encoder continues to fill a hole. `typed`: text at the hole's front that the first token, one of
    `first` where there are any, spells once more. `banned` token ids it may not write."""

    tokens: list[int]
    typed: str
    first: tuple[int, ...]
    banned: tuple[int, ...]


@dataclass(frozen=True)
class Question:
    """What a model that follows instructions is asked in words. The answer goes on behind `prompt` up to one of the
    tokens `ends`; `banned` token ids it may not write."""

    prompt: list[int]
    ends: tuple[int, ...]
    banned: tuple[int, ...]


class Family(Protocol):
    """The ways of one kind of model.

    null_token: the token of an empty slot, None where the model knows none (then lengths are probed).
    max_canvas: the widest canvas to lay out at once. slots: default slots of (a line, a block).
    """

    tokens: TextTokens
    max_canvas: int
    slots: tuple[int, int]
    budget: ContextBudget

    @property
    def null_token(self) -> int | None: ...

    def lay_out(
        self,
        context: ShownContext,
        holes: Sequence[TextHole],
        between: Sequence[str],
        slots: Sequence[int],
        drafts: Sequence[Sequence[int | None]] | None = None,
    ) -> Layout:
        """`between`: the texts between consecutive holes; `slots` and `drafts` (first tokens) a hole."""
        ...

    def causal_prompt(self, context: ShownContext, hole: TextHole) -> CausalPrompt | None:
        """For filling a single hole token by token; None where the encoder has not learnt to."""
        ...

    def question(self, text: str) -> Question | None:
        """For asking something in words; None where the model follows no instructions."""
        ...


def anchor(prefix: Sequence[int], line_breaks: Set[int], near: int, lines: int = 4, least: int = 12) -> int:
    """Where the canvas begins in the tokens before the first hole: at a line break, of every `lines`-th the
    last that leaves `least` tokens, so that typing on does not move it; never more than `near` tokens from
    the end."""
    breaks = [index for index, token in enumerate(prefix) if token in line_breaks]
    earliest = max(0, len(prefix) - near)
    reachable = [index for index in breaks if index <= len(prefix) - least]
    steps = [index for index in breaks[lines - 1 :: lines] if index <= len(prefix) - least]
    if (last := steps[-1] if steps else 0) >= earliest:
        return last
    close = [index for index in reachable if index >= earliest]
    return close[0] if close else min(-(-earliest // 16) * 16, max(earliest, len(prefix) - 1))


def split_suffix(suffix: list[int], line_breaks: Set[int], near: int, far: int) -> tuple[list[int], list[int]]:
    """(on the canvas, in the prompt): at most `near` and `far` tokens, cut at a line break where there is
    one."""
    if len(suffix) <= near:
        return suffix, []
    breaks = [index for index in range(near // 4, near + 1) if suffix[index] in line_breaks]
    cut = breaks[-1] if breaks else near
    return suffix[:cut], suffix[cut : cut + far]


def cut_front(tokens: list[int], room: int, line_breaks: Set[int], step: int = 64) -> list[int]:
    """The last tokens that fit in `room`. The cut moves by `step` tokens at a time, then on to a line
    break."""
    if len(tokens) <= room:
        return tokens
    first = min(len(tokens), -(-(len(tokens) - room) // step) * step)
    breaks = (index for index in range(first, min(first + step, len(tokens))) if tokens[index] in line_breaks)
    return tokens[next(breaks, first) :]


def build_canvas(
    tokens: TextTokens,
    lead: Sequence[int],
    prefix: Sequence[int],
    holes: Sequence[TextHole],
    runs: Sequence[Sequence[int]],
    slots: Sequence[int],
    drafts: Sequence[Sequence[int | None]] | None = None,
) -> tuple[Canvas, tuple[HoleColumns, ...]]:
    """lead, prefix, then each hole with the run of tokens that follows it.

    The token that ends before a hole may be the beginning of a longer one: then it moves into the hole, whose
    first token must begin with its text ("the cursor inside a token").
    """
    parts: list[Known | Hole] = []
    columns: list[HoleColumns] = []
    allowed: dict[int, list[int]] = {}
    at, before = 0, [*lead, *prefix]
    for index, (hole, run) in enumerate(zip(holes, runs, strict=True)):
        floor = len(lead) if index == 0 else 0
        typed, choices = typed_token(tokens, before[floor:], hole.one_line)
        known = before[:-1] if choices else before
        parts.append(Known(known))
        at += len(known)
        if choices:
            allowed[at] = [*choices]
        columns.append(HoleColumns(at, at + slots[index], typed))
        draft: list[int | None] = [*drafts[index]] if drafts else []
        if draft and choices and draft[0] not in choices:
            written = tokens.decode([token for token in draft if token is not None])
            draft = [*tokens.encode(typed + written)]
        parts.append(Hole(slots[index], draft))
        at += slots[index]
        before = [*run]
    parts.append(Known(before))
    return Canvas.of(*parts, allowed=allowed), tuple(columns)


def typed_token(tokens: TextTokens, before: Sequence[int], one_line: bool) -> tuple[str, tuple[int, ...]]:
    """(text, choices) of the last token of `before` where a longer one may stand in its place, else ("", ()).

    A hole of one line has no choices with more line breaks than were typed.
    """
    typed = tokens.decode(before[-1:])
    choices = tokens.starting_with(typed) if typed and "\ufffd" not in typed else []
    if one_line:
        breaks = typed.count("\n")
        choices = [token for token in choices if tokens.bytes_of[token].count(b"\n") == breaks]
    return (typed, tuple(choices)) if len(choices) > 1 and before[-1] in choices else ("", ())


def suffix_texts(holes: Sequence[TextHole], texts: Sequence[str]) -> list[str]:
    """What follows each hole as the canvas shows it: the line break that ends a whole line belongs to it."""
    return ["\n" + text if hole.whole_lines else text for hole, text in zip(holes, texts, strict=True)]

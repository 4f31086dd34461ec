"""Text from a canvas: the filling of a hole, and the view of a canvas that is being denoised.

Must not know whether a text is good.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from os.path import commonprefix

from engine.canvas_run import CanvasRun, DenoiseResult
from infill.prompts.prompt import Family, HoleKind, Layout, LayoutPlan
from infill.request import Piece, PieceState, StepView


@dataclass(frozen=True)
class HoleText:
    """token_spans: per slot its characters in `text`; empty for null slots and typed text. log_probabilities: per slot,
    in nats."""

    text: str
    token_spans: tuple[tuple[int, int], ...]
    log_probabilities: tuple[float, ...]

    @property
    def tokens(self) -> int:
        return sum(start < end for start, end in self.token_spans)

    @property
    def confidence(self) -> float:
        """Geometric mean of the probabilities of the tokens and of the first null slot after them."""
        written = [index for index, (start, end) in enumerate(self.token_spans) if start < end]
        last = min(written[-1] + 2 if written else 1, len(self.log_probabilities))
        return math.exp(sum(self.log_probabilities[:last]) / max(last, 1))

    def cut(self, shorter: str) -> HoleText:
        """With the text `shorter`, a prefix of this text that may have a line break added."""
        length = len(commonprefix([self.text, shorter]))
        spans = tuple((min(start, length), min(end, length)) for start, end in self.token_spans)
        return HoleText(shorter, spans, self.log_probabilities)


def hole_text(family: Family, layout: Layout, result: DenoiseResult, index: int, kind: HoleKind) -> HoleText:
    """The text of hole `index`, without null slots and typed text, and with a line break after whole lines.

    The text ends at bytes that are not UTF-8; in a hole of one line also at a line break.
    """
    hole = layout.holes[index]
    tokens = result.tokens[hole.start : hole.stop].tolist()
    spans: list[tuple[int, int]] = []
    text, decoder = "", codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        start = len(text)
        if token not in (family.null_token, -1):
            text += decoder.decode(family.tokens.bytes_of[token])
        spans.append((start, len(text)))
    offset = len(hole.healed) if text.startswith(hole.healed) else 0
    text = text[offset:].partition("\ufffd")[0]
    if kind.one_line:
        text = text.partition("\n")[0]
    if kind.whole_lines:
        text = text.rstrip(" \t") + "\n" if text.strip() else ""
    spans = [(_within(start - offset, len(text)), _within(end - offset, len(text))) for start, end in spans]
    by_column = dict(zip(result.columns.tolist(), result.log_probabilities.tolist(), strict=True))
    return HoleText(text, tuple(spans), tuple(by_column[column] for column in range(hole.start, hole.stop)))


def warm_layout(family: Family, plan: LayoutPlan, contradicted: str, text: str) -> Layout | None:
    """The layout of one hole that is expected to hold `text` after something in place of the text `contradicted`.

    None if the canvas would be too wide, or if nothing is expected.
    """
    typed = plan.typed[0]
    healed = "" if typed is None else typed.text
    draft: list[int | None] = [None] * len(family.tokens.encode(healed + contradicted)) if contradicted else []
    draft += family.tokens.encode(text if contradicted else healed + text)
    if not text.strip():
        return None
    if typed is not None and draft[0] is not None and not bool((typed.choices == draft[0]).any()):
        draft[0] = None
    slots = len(draft)
    if family.null_token is not None:
        slots = max(family.slots[0], slots)
        draft += [family.null_token] * (slots - len(draft))
    layout = plan.lay_out([slots], draft)
    return layout if layout.canvas.width <= family.max_canvas else None


def _within(position: int, length: int) -> int:
    return min(max(0, position), length)


def step_view(run: CanvasRun, family: Family) -> StepView:
    """The canvas of a run as pieces: known text, settled tokens, guesses that are still noise, null slots."""
    done = run.finished is not None
    in_hole = {column: index for index, column in enumerate(run.columns.tolist())}
    guesses, accepted = run.argmax.tolist(), run.accepted.tolist()
    marked: list[tuple[PieceState, bytes]] = []
    for column, token in enumerate(run.canvas.tolist()):
        index = in_hole.get(column)
        if index is None:
            marked.append(("known", family.tokens.bytes_of[token]))
        elif guesses[index] == family.null_token:
            marked.append(("null", b""))
        else:
            state: PieceState = "settled" if done or accepted[index] else "noise"
            marked.append((state, family.tokens.bytes_of[guesses[index]]))
    return StepView(run.steps, run.request.sampling.max_steps, _merged(marked))


def _merged(marked: Sequence[tuple[PieceState, bytes]]) -> tuple[Piece, ...]:
    pieces = []
    for state, group in groupby(marked, key=lambda entry: entry[0]):
        content = [data for _, data in group]
        text = "·" * len(content) if state == "null" else b"".join(content).decode("utf-8", "replace")
        pieces.append(Piece(text, state))
    return tuple(pieces)

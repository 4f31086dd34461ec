"""Lays out training windows: prompt, canvas, holes, null slots. Tokens in, arrays out.

The layout is the pocket model's own (infill/prompts/prompt.py builds the same from text): prompt = <bos> <language>
<|suffix|> far suffix <|prefix|> far prefix; canvas = near prefix, hole, near suffix; without gaps. A hole is followed
by <|null|> slots, which the model learns to leave empty. Must not know files.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from train.slips import Slips

Tokens = NDArray[np.int64]

BOS, NULL, MASK, SUFFIX, PREFIX = 2, 3, 4, 6, 7
LAST_SPECIAL = 31  # special tokens are never targets
STATEMENT, BLOCK = 2, 3
HOLE_KINDS = ("span", "rest_of_line", "line", "statement", "block")


@dataclass(frozen=True)
class LayoutConfig:
    """Sizes in tokens.

    A causal window has prompt + canvas tokens. A diffusion window has a prompt of `canvas_prompt` tokens (0: `prompt`)
    and `canvases` canvases that share it. supervised: positions of one canvas with a loss, at most. header: size of the
    text before a cut prefix: the file's first lines or, in `neighbour_share` of the windows, lines of another file of
    the project. kind_shares: in the order of HOLE_KINDS. exact_share: holes without null slots. slack: probability of
    the smallest preset that holds a hole; the next presets follow a geometric distribution. slip_share: canvases that
    are one hole and show slips (train/slips.py) instead of noise.
    """

    prompt: int = 320
    canvas: int = 128
    far_suffix: int = 96
    header: int = 64
    supervised: int = 64
    max_holes: int = 3
    kind_shares: tuple[float, ...] = (0.2, 0.3, 0.25, 0.15, 0.1)
    whole_canvas_share: float = 0.05
    slip_share: float = 0.0
    neighbour_share: float = 0.0
    exact_share: float = 0.15
    slack: float = 0.5
    canvases: int = 1
    canvas_prompt: int = 0

    @property
    def prompt_beside_canvas(self) -> int:
        return self.canvas_prompt or self.prompt

    def window(self, kind: str) -> int:
        """Positions of one window. kind: "causal" or "diffusion"."""
        if kind == "causal":
            return self.prompt + self.canvas
        return self.prompt_beside_canvas + self.canvases * self.canvas


@dataclass(frozen=True)
class FileTokens:
    """One file. newlines: indices of the newline tokens. spans: [count, 3] of start, end, kind. language: its token.
    neighbour: lines of another file of the project, empty without one."""

    tokens: Tokens
    newlines: Tokens
    spans: Tokens
    language: int
    neighbour: Tokens = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Row:
    """One window. hole: positions that the model writes. weight: of the loss, by position. shown: canvas with slips,
    or unchanged."""

    prompt: Tokens
    canvas: Tokens
    hole: NDArray[np.bool_]
    weight: NDArray[np.float32]
    shown: Tokens


def prompt_tokens(far_prefix: Tokens, far_suffix: Tokens, language: int) -> Tokens:
    head = np.array([BOS, language, SUFFIX], dtype=np.int64)
    return np.concatenate((head, far_suffix, np.array([PREFIX], dtype=np.int64), far_prefix))


def cut_prefix(file: FileTokens, end: int, size: int, config: LayoutConfig, rng: np.random.Generator) -> Tokens:
    """The last `size` tokens before `end`, often after a header (see LayoutConfig) of at most half of them."""
    header = np.empty(0, dtype=np.int64)
    if len(file.neighbour):
        header = file.neighbour
    elif end > size and rng.random() < 0.5:
        lines = file.newlines[(file.newlines > 0) & (file.newlines <= config.header)]
        header = file.tokens[: int(lines[-1]) if len(lines) else 0]
    if 2 * len(header) > size:
        header = header[:0]
    return np.concatenate((header, file.tokens[max(0, end - (size - len(header))) : end]))


def choose_hole(
    file: FileTokens, start: int, end: int, longest: int, kind: str, rng: np.random.Generator
) -> tuple[int, int] | None:
    """A random hole [first, last) of one of HOLE_KINDS within [start, end); None if there is none."""
    if end - start < 4:
        return None
    if kind == "span":
        length = min(int(rng.geometric(0.15)), longest, end - start - 1)
        first = int(rng.integers(start, end - length))
        return first, first + length
    if kind in ("statement", "block"):
        span_kind = STATEMENT if kind == "statement" else BLOCK
        spans = file.spans
        fits = spans[
            (spans[:, 0] >= start)
            & (spans[:, 1] <= end)
            & (spans[:, 2] == span_kind)
            & (spans[:, 1] - spans[:, 0] <= longest)
        ]
        if not len(fits):
            return None
        chosen = fits[rng.integers(len(fits))]
        return int(chosen[0]), int(chosen[1])
    lines = file.newlines[(file.newlines >= start) & (file.newlines < end)]
    if len(lines) < 2:
        return None
    index = int(rng.integers(len(lines) - 1))
    count = 1 if kind == "rest_of_line" or rng.random() < 0.7 else int(rng.integers(2, 4))
    last = int(lines[min(index + count, len(lines) - 1)])
    first = int(lines[index])
    if kind == "rest_of_line":
        if last - first < 2:
            return None
        first = int(rng.integers(first + 1, last))
    return (first, last) if 0 < last - first <= longest else None


def slots_for(length: int, config: LayoutConfig, rng: np.random.Generator) -> int:
    """Slots for a hole of `length` tokens: sometimes exact, mostly with the slack used in inference."""
    if rng.random() < config.exact_share:
        return length
    presets = [size for size in (8, 16, 24, 32, 48, 64) if size >= length]
    return presets[min(int(rng.geometric(config.slack)) - 1, len(presets) - 1)] if presets else length


def diffusion_rows(
    file: FileTokens, config: LayoutConfig, rng: np.random.Generator, slips: Slips | None = None
) -> list[Row]:
    """`canvases` rows at a random position of the file, with one shared prompt and holes of their own.

    Null slots push text off the end of a canvas. The far suffix starts after the canvas that shows the most text, so
    that no canvas sees the text of its holes in the prompt.
    """
    total, width = len(file.tokens), config.canvas
    start = int(rng.integers(0, max(1, total - width // 2)))
    end = min(total, start + width)
    canvases, consumed = [], start
    for _ in range(config.canvases):
        draw = rng.random()
        slipping = slips is not None and draw >= 1.0 - config.slip_share
        whole = slipping or draw < config.whole_canvas_share
        holes = [] if whole else _choose_holes(file, start, end, config, rng)
        canvas, hole, weight = _lay_out(file.tokens[start:end], [(a - start, b - start, s) for a, b, s in holes], width)
        shown = slips.slipped(canvas, rng) if slips is not None and slipping else canvas
        if not holes:
            chosen = rng.permutation(len(canvas))
            chosen = chosen[np.argsort(shown[chosen] == canvas[chosen], kind="stable")]  # slips first
            weight[chosen[: config.supervised]] = 1.0
            hole[:] = True
        consumed = max(consumed, start + len(canvas) - int((canvas == NULL).sum()))
        canvases.append((canvas, hole, weight, shown))
    far_suffix = file.tokens[consumed : consumed + int(rng.integers(0, config.far_suffix + 1))]
    size = config.prompt_beside_canvas - 4 - len(far_suffix)
    if rng.random() < 0.2:
        size = int(rng.integers(0, size + 1))
    prompt = prompt_tokens(cut_prefix(file, start, size, config, rng), far_suffix, file.language)
    return [Row(prompt, *canvas) for canvas in canvases]


def _choose_holes(
    file: FileTokens, start: int, end: int, config: LayoutConfig, rng: np.random.Generator
) -> list[tuple[int, int, int]]:
    """(first, last, slots) in file order, not adjacent, within the supervised budget."""
    budget, count = config.supervised, int(rng.integers(1, config.max_holes + 1))
    holes: list[tuple[int, int, int]] = []
    for _ in range(4 * count):
        kind = HOLE_KINDS[rng.choice(len(HOLE_KINDS), p=config.kind_shares)]
        found = choose_hole(file, start, end, budget, kind, rng)
        if found is None or any(found[0] <= last and first <= found[1] for first, last, _ in holes):
            continue
        slots = min(slots_for(found[1] - found[0], config, rng), budget)
        holes.append((*found, slots))
        budget -= slots
        if len(holes) == count or budget < 8:
            break
    if not holes:
        first = start + (end - start) // 3
        holes.append((first, min(first + 8, end), min(16, budget)))
    return sorted(holes)


def _lay_out(
    text: Tokens, holes: list[tuple[int, int, int]], width: int
) -> tuple[Tokens, NDArray[np.bool_], NDArray[np.float32]]:
    """(canvas with null slots, hole, weight), cut at `width`. All nulls of a hole but the first weigh less."""
    pieces: list[Tokens] = []
    marks: list[tuple[int, float]] = []
    at = 0
    for first, last, slots in holes:
        nulls = max(0, slots - (last - first))
        pieces += [text[at:first], text[first:last], np.full(nulls, NULL, dtype=np.int64)]
        marks += [(first - at, -1.0), (last - first, 1.0), (min(nulls, 1), 1.0), (max(0, nulls - 1), 0.2)]
        at = last
    pieces.append(text[at:])
    marks.append((len(text) - at, -1.0))
    weight = np.concatenate([np.full(count, value, dtype=np.float32) for count, value in marks])[:width]
    return np.concatenate(pieces)[:width].astype(np.int64), weight >= 0, np.maximum(weight, 0)


def causal_row(file: FileTokens, config: LayoutConfig, rng: np.random.Generator) -> tuple[Tokens, NDArray[np.float32]]:
    """(tokens, weight of each token as a target) of at most prompt + canvas tokens for causal training.

    Half of the windows are in fill-in-the-middle order (suffix, prefix, middle). Special tokens weigh 0.
    """
    size = config.prompt + config.canvas - 4 - len(file.neighbour)
    start = int(rng.integers(0, max(1, len(file.tokens) - size + 1)))
    window = file.tokens[start : start + size]
    tail = 0
    if rng.random() < 0.5 and len(window) > 64:
        tail = int(rng.integers(1, min(len(window) // 2, 160)))
    cut = len(window) - tail
    tokens = prompt_tokens(np.concatenate((file.neighbour, window[:cut])), window[cut:], file.language)
    return tokens, (tokens > LAST_SPECIAL).astype(np.float32)

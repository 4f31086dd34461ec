"""The state of one sequence with masks: which tokens are known, what was filled, and how holes grow and shrink.

Positions count from the start of the sequence, which is the prompt and the canvas behind it. Must not know the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from engine.canvas_run import CanvasRun, DenoiseRequest
from engine.masked.config import MaskedConfig, MaskedSampling
from engine.masked.keys import SequenceKeys

KNOWN = -1  # instead of the number of a hole


class Filled(NamedTuple):
    """What is known of a token in a hole: its log-probability at temperature 1, and the entropy it was drawn with, in
    nats; None for a draft, which no pass has predicted."""

    token: int
    log_probability: float | None = None
    entropy: float | None = None


@dataclass
class Slots:
    """A sequence. Per position: tokens; holes, the number of its hole or KNOWN; filled, for slots that are not masks;
    allowed, the tokens that a slot is restricted to.

    most: slots per hole; empty if no hole may change its length. budget: expansions that are left. gaps: the known
    tokens of the canvas before each hole, and after the last. removed: per hole its last deletion.
    """

    config: MaskedConfig
    tokens: list[int]
    holes: list[int]
    filled: list[Filled | None]
    allowed: list[Tensor | None]
    most: list[int]
    budget: int
    gaps: list[list[int]]
    removed: dict[int, Filled] = field(default_factory=dict)
    slots: list[int] = field(init=False)  # the positions of all holes
    sizes: list[int] = field(init=False)  # slots per hole

    def __post_init__(self) -> None:
        self._count()

    def _count(self) -> None:
        self.slots = [position for position, hole in enumerate(self.holes) if hole != KNOWN]
        self.sizes = [0] * (1 + max((self.holes[position] for position in self.slots), default=-1))
        self.sizes += [0] * (len(self.most) - len(self.sizes))
        for position in self.slots:
            self.sizes[self.holes[position]] += 1

    @staticmethod
    def of(request: DenoiseRequest, config: MaskedConfig) -> Slots:
        prompt, canvas = list(request.prompt), request.canvas
        start, tokens, pinned = len(prompt), canvas.tokens.tolist(), canvas.pinned.tolist()
        sizes, most = [], list[int]()
        if config.expand is not None:
            sizes, most = [size for size, _ in request.growth], [limit for _, limit in request.growth]
        if sum(sizes) != pinned.count(False):
            sizes, most = [pinned.count(False)], []
        numbers = [number for number, size in enumerate(sizes) for _ in range(size)]
        gaps: list[list[int]] = [[] for _ in range(len(sizes) + 1)]
        holes, at = [KNOWN] * start, 0
        for token, known in zip(tokens, pinned, strict=True):
            holes.append(KNOWN if known else numbers[at])
            if known:
                gaps[0 if not at else numbers[at - 1] + 1].append(token)
            at += not known
        filled: list[Filled | None] = [None] * start
        filled += [None if known or token < 0 else Filled(token) for token, known in zip(tokens, pinned, strict=True)]
        allowed: list[Tensor | None] = [None] * start
        return Slots(
            config=config,
            tokens=[*prompt, *(config.mask if token < 0 else token for token in tokens)],
            holes=holes,
            filled=filled,
            allowed=[*allowed, *(canvas.allowed.get(column) for column in range(len(tokens)))],
            most=most,
            budget=sum(most),
            gaps=gaps,
        )

    @property
    def known(self) -> list[int]:
        """The positions outside the holes."""
        return [position for position, hole in enumerate(self.holes) if hole == KNOWN]

    @property
    def masks(self) -> list[int]:
        return [position for position in self.slots if self.filled[position] is None]

    def can_grow(self, position: int) -> bool:
        """Whether the mask at `position` may become two."""
        return bool(self.most) and self.budget > 0 and self._room(self.holes[position]) > 0

    def can_delete(self, position: int) -> bool:
        return bool(self.most) and self.allowed[position] is None

    def fill(self, position: int, filled: Filled) -> None:
        self.tokens[position], self.filled[position] = filled.token, filled

    def mask(self, position: int) -> None:
        self.tokens[position], self.filled[position] = self.config.mask, None

    def resolve(self, delete_rest: bool) -> list[int] | None:
        """Turns slots that are filled with `expand` into two masks, and removes those filled with `delete`.

        delete_rest: also removes the masks that follow a deletion in its hole. Returns for each position where it was
        before (both masks: where the expansion was), None if nothing changed.
        """
        if not any(self._is(position, self.config.expand, self.config.delete) for position in self.slots):
            return None
        sources: list[int] = []
        room = [self._room(hole) for hole in range(len(self.most))]
        removing = KNOWN  # the hole whose masks are being removed
        for position, hole in enumerate(self.holes):
            filled = self.filled[position]
            if hole != KNOWN and filled is not None and self._is(position, self.config.delete):
                self.removed[hole], removing = filled, hole if delete_rest else KNOWN
                continue
            if hole != KNOWN and filled is None and hole == removing and self.allowed[position] is None:
                continue
            sources.append(position)
            if hole != KNOWN and self._is(position, self.config.expand):
                self.mask(position)
                if room[hole] > 0 and self.budget > 0:
                    sources.append(position)
                    room[hole], self.budget = room[hole] - 1, self.budget - 1
        second = [index > 0 and sources[index - 1] == source for index, source in enumerate(sources)]
        self.tokens = [self.tokens[source] for source in sources]
        self.holes = [self.holes[source] for source in sources]
        self.filled = [self.filled[source] for source in sources]
        self.allowed = [None if added else self.allowed[source] for source, added in zip(sources, second, strict=True)]
        self._count()
        return sources

    def contents(self) -> list[list[int]]:
        """Per hole the positions of its slots."""
        found: list[list[int]] = [[] for _ in self.gaps[1:]]
        for position in self.slots:
            found[self.holes[position]].append(position)
        return found

    def _room(self, hole: int) -> int:
        """How many slots the hole may still get."""
        return self.most[hole] - self.sizes[hole]

    def _is(self, position: int, *tokens: int | None) -> bool:
        filled = self.filled[position]
        return filled is not None and bool(self.most) and filled.token in tokens


@dataclass(kw_only=True)
class MaskedRun(CanvasRun):
    """See `CanvasRun`. keys: None before the first whole pass, and without a cache; read: the tokens that they are of,
    empty before the first pass; new: known positions that they do not have yet; changed: known tokens that have changed
    since the last whole pass; since_whole: passes since then. step: of the schedule. guesses: of the last pass, by
    position."""

    slots: Slots
    start: int
    sampling: MaskedSampling
    variable: int  # masks at the start
    banned: Tensor  # [banned] of all slots
    keys: SequenceKeys | None = None
    read: list[int] = field(default_factory=list)
    new: set[int] = field(default_factory=set)
    changed: int = 0
    since_whole: int = 0
    step: int = 0
    encoded: int = 0
    guesses: dict[int, Filled] = field(default_factory=dict)

    def note_pass(self) -> None:
        """All tokens have been read."""
        self.since_whole, self.new, self.read = self.since_whole + 1, set(), list(self.slots.tokens)

    def show(self) -> None:
        """Updates what callers see."""
        positions = self.slots.slots
        known = [self.slots.filled[position] for position in positions]
        best = [one or self.guesses.get(position) for one, position in zip(known, positions, strict=True)]
        self.columns = torch.tensor(positions, dtype=torch.long) - self.start
        self.canvas = torch.tensor(self.slots.tokens[self.start :], dtype=torch.long)
        self.argmax = torch.tensor([self.slots.config.mask if one is None else one.token for one in best])
        self.accepted = torch.tensor([one is not None for one in known], dtype=torch.bool)
        self.entropy = torch.tensor([0.0 if one is None or one.entropy is None else one.entropy for one in best])

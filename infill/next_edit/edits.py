"""What the user changed, and what is proposed in return. Must not know syntax."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["rename", "repeat", "argument", "field", "import", "case", "return"]
MAX_TOKENS = 400  # of the old and of the new text; longer edits are not split
_TOKEN = re.compile(r"\w+|[^\S\n]+|\n|[^\w\s]")


class Place(NamedTuple):
    """text[start:end] becomes `text`, in characters."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class UserEdit:
    """`old` became `new`, which is at character `start` of the current text.

    by_hand: False for an accepted proposal, and for several edits made by one command, such as a rename by the editor.
    """

    start: int
    old: str
    new: str
    by_hand: bool = True

    @property
    def end(self) -> int:
        return self.start + len(self.new)


@dataclass(frozen=True)
class Proposal:
    """places: in text order, disjoint, in the current text. reason: a sentence for the user. rank: 0 to 1, the higher
    the better. anchor: character offset of the edit that it follows."""

    kind: Kind
    places: tuple[Place, ...]
    reason: str
    rank: float
    anchor: int


def apply(text: str, places: tuple[Place, ...]) -> str:
    """The text with all places changed."""
    for start, end, replacement in sorted(places, reverse=True):
        text = text[:start] + replacement + text[end:]
    return text


def split(edit: UserEdit) -> list[UserEdit]:
    """The parts of an edit that really changed, token by token, in text order."""
    core = trimmed(edit)
    if core.old == core.new:
        return []
    old, new = _TOKEN.findall(core.old), _TOKEN.findall(core.new)
    if max(len(old), len(new)) > MAX_TOKENS:
        return [core]
    return list(_changed(core, old, new))


def trimmed(edit: UserEdit) -> UserEdit:
    """The edit without the tokens that both texts begin and end with."""
    old, new = _TOKEN.findall(edit.old), _TOKEN.findall(edit.new)
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    start = edit.start + sum(map(len, old[:head]))
    old, new = old[head : len(old) - tail], new[head : len(new) - tail]
    return UserEdit(start, "".join(old), "".join(new), edit.by_hand)


def _common(one: list[str], other: list[str]) -> int:
    """The length of the common prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))


def _changed(edit: UserEdit, old: list[str], new: list[str]) -> Iterator[UserEdit]:
    starts = [edit.start]
    for token in new:
        starts.append(starts[-1] + len(token))
    for tag, first, last, new_first, new_last in difflib.SequenceMatcher(None, old, new, False).get_opcodes():
        if tag != "equal":
            removed, inserted = "".join(old[first:last]), "".join(new[new_first:new_last])
            yield UserEdit(starts[new_first], removed, inserted, edit.by_hand)

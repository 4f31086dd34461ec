"""The proposals that follow the user's last edits; the only module that knows all kinds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from functools import cache

from engine.errors import Stop, leave_if
from infill.code.syntax import SyntaxTree, in_comment
from infill.next_edit.cases import new_case
from infill.next_edit.change import Change, is_broken, was_broken
from infill.next_edit.edits import Kind, Place, Proposal, UserEdit, split, trimmed
from infill.next_edit.fields import parameter_for_field, shown_field, stored_parameter
from infill.next_edit.grammar import GRAMMARS
from infill.next_edit.imports import missing_import, unused_import
from infill.next_edit.parameters import added_parameter, removed_parameter
from infill.next_edit.rename import rename
from infill.next_edit.repeat import repeat
from infill.next_edit.returns import more_values

MAX_CHARS = 400_000  # of a file
MAX_EDITS, MAX_PARTS = 4, 12  # the last edits that count, and the parts of one
MAX_PLACES = 100  # of a proposal
_LINE_END = re.compile(r"\r?\n")
_RULES: tuple[Callable[[Change], Iterator[Proposal]], ...] = (
    rename,
    removed_parameter,
    added_parameter,
    stored_parameter,
    parameter_for_field,
    shown_field,
    missing_import,
    unused_import,
    new_case,
)


def next_edits(
    tree: SyntaxTree,
    edits: Sequence[UserEdit],
    cursor: int,
    neighbours: Sequence[str] = (),
    asleep: Set[Kind] = frozenset(),
    stop: Stop | None = None,
) -> list[Proposal]:
    """What is due after `edits`, the user's last, oldest first; best proposal first.

    tree: of the current text. cursor: its offset. asleep: kinds that are not wanted. Raises Cancelled or ParsingStopped
    once `stop` returns True.
    """
    if tree.language.id not in GRAMMARS or len(tree.text) > MAX_CHARS:
        return []
    found: list[Proposal] = []

    @cache
    def change_of(part: UserEdit, edit: UserEdit | None = None) -> Change:
        return Change(part, tree, stop, neighbours, edit)

    newest = [edit for edit in edits if edit.by_hand][-MAX_EDITS:]
    for age, edit in enumerate(reversed(newest)):
        parts = split(edit)
        if len(parts) > MAX_PARTS:
            continue
        whole = change_of(trimmed(edit), edit)
        if not is_broken(whole) and not was_broken(whole):
            found += [_aged(one, age) for one in more_values(whole)]
        for part in parts:
            leave_if(stop)
            change = change_of(part, edit)
            if is_blank(part) or is_broken(change) or _is_prose(change):
                continue
            follow_ups = [_aged(one, age) for rule in _RULES for one in rule(change)]
            if follow_ups and not was_broken(change):
                found += follow_ups
    found += repeat(change_of, newest)
    wanted = [one for one in found if one.kind not in asleep and _fits(tree, one, edits)]
    kept = (_with_line_ends(one, tree.text) for one in _distinct(wanted))
    return sorted(kept, key=lambda one: (-one.rank, _distance(one, cursor)))


def is_blank(edit: UserEdit) -> bool:
    """Whether only white space changed."""
    return "".join(edit.old.split()) == "".join(edit.new.split())


def _is_prose(change: Change) -> bool:
    """Whether the edit is within a comment, or removes one."""
    sides = ((change.before, change.edit.old), (change.after, change.edit.new))
    written = [(tree, text) for tree, text in sides if text.strip()]
    return all(in_comment(tree, _middle(tree, change.edit.start, text)) for tree, text in written)


def _middle(tree: SyntaxTree, start: int, text: str) -> int:
    """An offset within the middle line with code of a text at `start`, behind the first character of the line."""
    lines = [match for match in re.finditer(r"[^\n]*\S[^\n]*", text)]
    middle = lines[len(lines) // 2]
    return min(start + (middle.start() + middle.end() + 1) // 2, len(tree.text))


def _aged(proposal: Proposal, age: int) -> Proposal:
    """Older edits count less."""
    return replace(proposal, rank=proposal.rank - 0.02 * age)


def _fits(tree: SyntaxTree, proposal: Proposal, edits: Sequence[UserEdit]) -> bool:
    """Whether the proposal changes something, not too much, and nothing that the user just wrote by hand."""
    if not 0 < len(proposal.places) <= MAX_PLACES:
        return False
    if all(tree.text[start:end] == text for start, end, text in proposal.places):
        return False
    return all(one.end <= other.start for one, other in zip(proposal.places, proposal.places[1:], strict=False))


def _distinct(proposals: Sequence[Proposal]) -> Iterator[Proposal]:
    """Of proposals that touch the same text, the one with the higher rank."""
    kept: list[Proposal] = []
    for one in sorted(proposals, key=lambda one: -one.rank):
        taken = [place for other in kept for place in other.places]
        if not any(
            place.start < other.end and other.start < place.end or place[:2] == other[:2]
            for place in one.places
            for other in taken
        ):
            kept.append(one)
            yield one


def _with_line_ends(proposal: Proposal, text: str) -> Proposal:
    """With the line ends of the text, in which those of the proposal may be shorter."""
    if "\r\n" not in text:
        return proposal
    places = tuple(Place(start, end, _LINE_END.sub("\r\n", new)) for start, end, new in proposal.places)
    return replace(proposal, places=places)


def _distance(proposal: Proposal, cursor: int) -> int:
    return min(abs(place.start - cursor) for place in proposal.places)


def is_settled(edit: UserEdit, text: str, cursor: int, idle_s: float, pause_s: float = 0.3) -> bool:
    """Whether the user seems to be done with an edit: the cursor is on another line, or a pause followed a complete
    token. A name that is a part of its old self, or gone, counts only once the cursor has left it."""
    if not edit.start <= cursor <= edit.end:
        away = text[min(cursor, edit.start) : max(cursor, edit.end)]
        if "\n" in away:
            return True
    if idle_s < pause_s:
        return False
    head = re.search(r"\w*\Z", text[max(0, cursor - 100) : cursor])
    assert head is not None
    for part in split(edit):
        is_at = part.start <= cursor <= part.end
        is_half = re.match(r"\w", part.old) if head[0] else re.fullmatch(r"\w+", part.old)
        if is_at and not part.new and is_half:
            return False
        if is_at and re.fullmatch(r"\w+", part.new) and (part.new.endswith("_") or part.old.startswith(part.new)):
            return False
    return True

"""Edits of a text by unique words, and what is proposed after them."""

from __future__ import annotations

from collections.abc import Sequence

from infill.code.syntax import parse
from infill.next_edit.edits import Kind, Proposal, apply
from infill.next_edit.find import next_edits
from infill.next_edit.history import EditHistory


def edited(text: str, *replacements: tuple[str, str]) -> tuple[str, EditHistory]:
    """The text with the first occurrence of each old text replaced by the new one, and the history of that."""
    history = EditHistory()
    for old, new in replacements:
        start = text.index(old)
        history.changed(text, start, old, new)
        text = text[:start] + new + text[start + len(old) :]
    return text, history


def proposals(
    text: str, *replacements: tuple[str, str], language: str = "python", neighbours: Sequence[str] = ()
) -> tuple[str, list[Proposal]]:
    """The text after the replacements, and the proposals."""
    text, history = edited(text, *replacements)
    tree = parse(text, language)
    assert tree is not None
    return text, next_edits(tree, history.edits, 0, neighbours)


def changed_lines(
    text: str, *replacements: tuple[str, str], kind: Kind | None = None, language: str = "python", **more: Sequence[str]
) -> list[str]:
    """The lines that the best proposal adds or changes; empty if there is none."""
    text, found = proposals(text, *replacements, language=language, **more)
    found = [one for one in found if kind is None or one.kind == kind]
    if not found:
        return []
    old = text.split("\n")
    new = apply(text, found[0].places).split("\n")
    if len(old) != len(new):
        return [line for line in new if line not in old] or [f"-{line}" for line in old if line not in new]
    return [line for line, other in zip(new, old, strict=True) if line != other]

"""When to ask the model and when to be quiet: named rules over the text around the cursor, each with its sentence.

A rule that is quiet where a suggestion would have been welcome costs a key press (ask by hand); one that asks where
nobody wants anything costs trust. Must not know the protocol, the engine, or what is known about a place already.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from infill.indentation import expects_block
from infill.languages import get
from lsp.documents import Edit
from lsp.settings import Eagerness

Kind = Literal["code", "comment", "string"]
LONG_LINE = 400  # characters
BULK_CHARACTERS = 80
_AFTER_OK = re.compile(r"[\s)\]}>\"'`;,:]*\Z")
_WORD_END = re.compile(r"\w\Z")
_WORDS = re.compile(r"\w+")
_FINISHED = re.compile(r"(?:[;}]|(?<!\()\)|\]|[\w)]\s*:)[ \t]*\Z")
_TYPED = re.compile(r"(?:\r\n|\r|\n)?[ \t]*\Z|[^\r\n]*\Z")


@dataclass(frozen=True)
class Situation:
    """before, after: text around the cursor, at least its line and some before. edits: of the last change.

    selected: the entry of the popup that is chosen, which `before` ends with.
    """

    before: str
    after: str
    language: str | None
    invoked: bool
    place: Kind = "code"
    edits: tuple[Edit, ...] = ()
    selected: str | None = None
    eagerness: Eagerness = "balanced"
    multiline: Literal["auto", "never"] = "auto"
    has_selection: bool = False
    in_snippet: bool = False

    @property
    def line(self) -> str:
        """The line left of the cursor."""
        return self.before[self.before.rfind("\n") + 1 :]

    @property
    def rest(self) -> str:
        """The line right of the cursor."""
        return re.split(r"[\r\n]", self.after, maxsplit=1)[0]


@dataclass(frozen=True)
class Quiet:
    """rule: its name, as statistics and reports have it; sentence: for the user."""

    rule: str
    sentence: str


Rule = Callable[[Situation], Quiet | None]


def selecting(situation: Situation) -> Quiet | None:
    return Quiet("selecting", "Some text is selected.") if situation.has_selection else None


def in_snippet(situation: Situation) -> Quiet | None:
    return Quiet("in a snippet", "A snippet is being filled in.") if situation.in_snippet else None


def empty_file(situation: Situation) -> Quiet | None:
    if (situation.before + situation.after).strip():
        return None
    return Quiet("empty file", "There is nothing in this file yet to go by.")


def bulk_change(situation: Situation) -> Quiet | None:
    """Pasting, undoing much, formatting, replacing: the user looks at what happened, and writes nothing now."""
    edits = situation.edits
    if not edits:
        return None
    several = len(edits) > 2
    pasted = any(
        len(edit.inserted) > BULK_CHARACTERS or not _TYPED.match(edit.inserted) and edit.inserted.count("\n") > 1
        for edit in edits
    )
    cut = any(edit.removed.count("\n") > 1 for edit in edits)
    if several or pasted or cut:
        return Quiet("bulk change", "Much was changed at once; a suggestion comes again when you type.")
    return None


def inside_word(situation: Situation) -> Quiet | None:
    if situation.rest[:1].isalnum() or situation.rest[:1] == "_":
        return Quiet("inside a word", "The cursor stands before the rest of a word.")
    return None


def middle_of_line(situation: Situation) -> Quiet | None:
    if _AFTER_OK.match(situation.rest):
        return None
    return Quiet("middle of a line", "More than closing brackets and punctuation follows on this line.")


def deleted(situation: Situation) -> Quiet | None:
    """Who deletes within a word corrects it."""
    if situation.eagerness == "eager" or len(situation.edits) != 1:
        return None
    edit = situation.edits[0]
    if edit.removed and not edit.inserted and _WORD_END.search(situation.line):
        return Quiet("just deleted", "You have just deleted something; a suggestion comes when you type on.")
    return None


def long_line(situation: Situation) -> Quiet | None:
    if len(situation.line) + len(situation.rest) <= LONG_LINE:
        return None
    return Quiet("long line", f"This line is longer than {LONG_LINE} characters.")


def in_string(situation: Situation) -> Quiet | None:
    if situation.place == "string" and situation.eagerness != "eager":
        return Quiet("in a string", "The cursor stands in a string.")
    return None


def in_comment(situation: Situation) -> Quiet | None:
    """Prose is guessed badly and read unwillingly; a comment line that has a few words already is worth a try."""
    if situation.place != "comment" or situation.eagerness == "eager":
        return None
    if situation.eagerness == "balanced" and len(_WORDS.findall(situation.line)) >= 3 and situation.line[-1:] == " ":
        return None
    return Quiet("in a comment", "The cursor stands in a comment.")


def finished(situation: Situation) -> Quiet | None:
    """After a closing bracket or the end of a statement the next thing is mostly a new line."""
    if situation.eagerness == "eager" or not _FINISHED.search(situation.line):
        return None
    return Quiet("statement finished", "The statement left of the cursor looks finished.")


def unchosen_line(situation: Situation) -> Quiet | None:
    """An empty line at the top level may become anything."""
    if situation.eagerness != "calm" or situation.line.strip():
        return None
    if situation.line or expects_block(situation.before, len(situation.before), situation.language):
        return None
    return Quiet("empty line at the top", "At the top level anything may come.")


def short_word(situation: Situation) -> Quiet | None:
    """When calm, one letter of a name is not enough to go by."""
    if situation.eagerness != "calm":
        return None
    match = re.search(r"(?<![\w.])\w\Z", situation.line)
    return Quiet("one letter", "One letter of a word is little to go by.") if match else None


RULES: tuple[Rule, ...] = (
    selecting,
    in_snippet,
    empty_file,
    bulk_change,
    inside_word,
    middle_of_line,
    deleted,
    long_line,
    in_string,
    in_comment,
    finished,
    unchosen_line,
    short_word,
)


def why_quiet(situation: Situation) -> Quiet | None:
    """The first rule that says to be quiet; none where the user asked by hand."""
    if situation.invoked:
        return None
    return next((quiet for rule in RULES if (quiet := rule(situation)) is not None), None)


def lines_wanted(situation: Situation) -> Literal["one", "auto"]:
    """Several lines only on an empty line where a block begins; elsewhere one."""
    if situation.multiline == "never" or situation.line.strip() or situation.rest.strip():
        return "one"
    if get(situation.language) is None:
        return "one"
    return "auto" if expects_block(situation.before, len(situation.before), situation.language) else "one"

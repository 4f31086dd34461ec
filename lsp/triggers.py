"""When to ask the model and when to be quiet: named rules over the text around the cursor, each with its sentence.

A rule that is quiet where a suggestion would have been welcome costs a key press (ask by hand); one that asks where
nobody wants anything costs trust. Must not know the protocol, the engine, or what is known about a place already.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from infill.code.indentation import expects_block, is_python_header
from infill.code.languages import get
from lsp.documents import Edit
from lsp.settings import Eagerness

Kind = Literal["code", "comment", "string"]
LONG_LINE = 400  # characters
LETTERS = 3  # of a word, to go by
COMMENT_WORDS = 3
PLACES = 2  # that one message may change: what is typed, and an import that a completion brings along
_LINE_END = re.compile(r"[\r\n]")
_AFTER_OK = re.compile(r"[\s)\]}>\"'`;,:]*+\{?\s*\Z")
_WORD_END = re.compile(r"\w\Z")
_FEW_LETTERS = re.compile(rf"(?<![\w.])\w{{1,{LETTERS - 1}}}\Z")
_WORDS = re.compile(r"\w+")
_WHOLE_COMMENT = re.compile(r"\s*(?:#|//|/?\*)")
_CASE_LABEL = re.compile(r"\s*(?:case\b.*|default):\Z")
_END_OF_HEADER = re.compile(r"\s*[)\]}].*:\Z")


@dataclass(frozen=True)
class Situation:
    """before, after: text around the cursor, at least its line and some before. edits: of the last change.

    selected: the entry of the popup that is chosen, which `before` ends with; typed: what stands there in its place.
    offered: the suggestion that was last on the screen in this document.
    """

    before: str
    after: str
    language: str | None
    invoked: bool
    place: Kind = "code"
    edits: tuple[Edit, ...] = ()
    selected: str | None = None
    typed: str = ""
    offered: str = ""
    eagerness: Eagerness = "balanced"
    multiline: Literal["auto", "never"] = "auto"
    has_selection: bool = False
    in_snippet: bool = False

    @property
    def line(self) -> str:
        """The line left of the cursor."""
        return self.before[max(self.before.rfind("\n"), self.before.rfind("\r")) + 1 :]

    @property
    def rest(self) -> str:
        """The line right of the cursor."""
        return _LINE_END.split(self.after, maxsplit=1)[0]


@dataclass(frozen=True)
class Quiet:
    """rule: its name, as statistics and reports have it; sentence: for the user."""

    rule: str
    sentence: str


Rule = Callable[[Situation], Quiet | None]


def selecting(situation: Situation) -> Quiet | None:
    """What is typed next replaces the selection, so nothing fits beside it."""
    return Quiet("selecting", "Some text is selected.") if situation.has_selection else None


def in_snippet(situation: Situation) -> Quiet | None:
    """The snippet's own fields say what comes next, and Tab is theirs."""
    return Quiet("in a snippet", "A snippet is being filled in.") if situation.in_snippet else None


def popup_entry(situation: Situation) -> Quiet | None:
    """Editors draw no suggestion over a chosen entry that takes back what was typed."""
    if situation.selected is None or situation.selected.startswith(situation.typed):
        return None
    return Quiet("popup entry", "The chosen entry of the popup does not begin with what you typed.")


def empty_file(situation: Situation) -> Quiet | None:
    """Without any text a suggestion is a guess about everything."""
    if (situation.before + situation.after).strip():
        return None
    return Quiet("empty file", "There is nothing in this file yet to go by.")


def bulk_change(situation: Situation) -> Quiet | None:
    """Pasting, undoing much, formatting, replacing: the user looks at what happened, and writes nothing now."""
    edits = situation.edits
    apart = sum(not _touch(one, other) for one, other in pairwise(edits))
    pasted = any(_has_lines(edit.inserted) and edit.inserted not in situation.offered for edit in edits)
    if apart < PLACES and not pasted and not any(_has_lines(edit.removed) for edit in edits):
        return None
    return Quiet("bulk change", "Much was changed at once; a suggestion comes again when you type.")


def _touch(edit: Edit, following: Edit) -> bool:
    """Whether one edit goes on where the other was: keys typed fast come as several edits in one message."""
    end = following.start + len(following.removed)
    return edit.start <= end and following.start <= edit.start + len(edit.inserted)


def _has_lines(text: str) -> bool:
    """Whether there is more than one line of text, not only line ends and the indentation that Enter brings."""
    return _LINE_END.search(text.strip()) is not None


def inside_word(situation: Situation) -> Quiet | None:
    """Who stands in a word changes its name, and the rest of the word would have to go."""
    if ("x" + situation.rest[:1]).isidentifier() and situation.rest:
        return Quiet("inside a word", "The cursor stands before the rest of a word.")
    return None


def middle_of_line(situation: Situation) -> Quiet | None:
    """Where code follows on the line, most of what a model writes repeats it."""
    if _AFTER_OK.match(situation.rest):
        return None
    return Quiet("middle of a line", "More than closing brackets and punctuation follows on this line.")


def deleted(situation: Situation) -> Quiet | None:
    """Who deletes within a word corrects it."""
    if situation.eagerness == "eager" or not situation.edits:
        return None
    edit = situation.edits[-1]
    if edit.removed and not edit.inserted and _WORD_END.search(situation.line):
        return Quiet("just deleted", "You have just deleted something; a suggestion comes when you type on.")
    return None


def long_line(situation: Situation) -> Quiet | None:
    """Such lines are data or minified code, which nobody writes by hand."""
    if len(situation.line) + len(situation.rest) <= LONG_LINE:
        return None
    return Quiet("long line", f"This line is longer than {LONG_LINE} characters.")


def in_string(situation: Situation) -> Quiet | None:
    """Strings, docstrings among them, are mostly prose, keys and paths, which cannot be told from the code."""
    if situation.place == "string" and situation.eagerness != "eager":
        return Quiet("in a string", "The cursor stands in a string.")
    return None


def in_comment(situation: Situation) -> Quiet | None:
    """Prose is guessed badly and read unwillingly; a comment line that has a few words already is worth a try."""
    if situation.place != "comment" or situation.eagerness == "eager":
        return None
    if situation.eagerness == "balanced" and _WHOLE_COMMENT.match(situation.line) and situation.line.endswith(" "):
        if len(_WORDS.findall(situation.line)) >= COMMENT_WORDS:
            return None
    return Quiet("in a comment", "The cursor stands in a comment.")


def finished(situation: Situation) -> Quiet | None:
    """Right after `;`, `}`, `)` or a header's `:` the line is mostly over.

    Of lines in published code, by language, 1 to 3 % go on after a `;` that ends a statement, 3 to 48 % after `}`, 15
    to 36 % after `)`. After `]` it is 38 to 73 %, so there only calm is quiet. A space after one says that it goes on.
    """
    line = situation.line
    closed = line.endswith((";", "}", ")")) or situation.eagerness == "calm" and line.endswith("]")
    if situation.eagerness == "eager" or not (closed or _is_header(line, situation.language)):
        return None
    return Quiet("statement finished", "The statement left of the cursor looks finished.")


def _is_header(line: str, language_id: str | None) -> bool:
    """Whether the line ends with the colon of a block or of a case, not with that of an annotation or a dictionary."""
    if not line.endswith(":"):
        return False
    language = get(language_id)
    if language is not None and language.indentation_sensitive:
        return is_python_header(line) or _END_OF_HEADER.match(line) is not None
    return _CASE_LABEL.match(line) is not None


def unchosen_line(situation: Situation) -> Quiet | None:
    """An empty line at the top level may become anything."""
    if situation.eagerness != "calm" or situation.line or _expects_block(situation):
        return None
    return Quiet("empty line at the top", "At the top level anything may come.")


def few_letters(situation: Situation) -> Quiet | None:
    """When calm, a letter or two of a name are not enough to go by, unless a dot before them narrows it down."""
    if situation.eagerness != "calm" or not _FEW_LETTERS.search(situation.line):
        return None
    return Quiet("few letters", "One or two letters of a word are little to go by.")


RULES: tuple[Rule, ...] = (
    selecting,
    in_snippet,
    popup_entry,
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
    few_letters,
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
    return "auto" if _expects_block(situation) else "one"


def _expects_block(situation: Situation) -> bool:
    if get(situation.language) is None:
        return False
    return expects_block(situation.before + situation.after, len(situation.before), situation.language)

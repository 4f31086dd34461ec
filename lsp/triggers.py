"""Rules that decide when to ask the model and when to stay quiet, from the text around the cursor.

A rule that is quiet when a suggestion was welcome costs a key press (invoke by hand); one that asks when nobody wants a
suggestion costs trust. Must not know the protocol, the engine, or the suggestion cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from infill.code.indentation import expects_block, is_python_header
from infill.code.languages import get
from infill.request import Lines
from lsp.documents import Edit
from lsp.settings import Eagerness
from lsp.suggestions import SkipReason

Kind = Literal["code", "comment", "string"]
LONG_LINE = 400  # characters
LETTERS = 3  # least letters of a word to complete
COMMENT_WORDS = 3  # least words in a comment to complete
STRING_WORDS = 2  # words from which on a string is prose
CHANGES = 2  # most separate changes by one key: the typed text, and an import added by a completion
_LINE_END = re.compile(r"[\r\n]")
_AFTER_OK = re.compile(r"[\s)\]}>\"'`;,:]*+\{?\s*\Z")
_WORD_END = re.compile(r"\w\Z")
_FEW_LETTERS = re.compile(rf"(?<![\w.])\w{{1,{LETTERS - 1}}}\Z")
_WORDS = re.compile(r"\w+")
_SHORT_STRING = re.compile(r"(?<![\"'`])[\"'`]([^\"'`]*)\Z")  # its text up to the cursor; not that of a docstring
_WHOLE_COMMENT = re.compile(r"\s*(?:#|//|/?\*)")
_CASE_LABEL = re.compile(r"\s*(?:case\b.*|default):\Z")
_END_OF_HEADER = re.compile(r"\s*[)\]}].*:\Z")


@dataclass(frozen=True)
class Situation:
    """before, after: text around the cursor, at least its line and some lines above. edits: of the last change.

    kind: what the cursor is in. selected: the entry selected in the popup, which `before` ends with; typed: the text
    that it replaces. last_shown: the suggestion shown last in this document.
    """

    before: str
    after: str
    language: str | None
    invoked: bool
    kind: Kind = "code"
    edits: tuple[Edit, ...] = ()
    selected: str | None = None
    typed: str = ""
    last_shown: str = ""
    eagerness: Eagerness = "balanced"
    multiline: Literal["auto", "never"] = "auto"

    @property
    def line(self) -> str:
        """The line left of the cursor."""
        return self.before[max(self.before.rfind("\n"), self.before.rfind("\r")) + 1 :]

    @property
    def rest(self) -> str:
        """The line right of the cursor."""
        return _LINE_END.split(self.after, maxsplit=1)[0]


Rule = Callable[[Situation], SkipReason | None]


def popup_entry(situation: Situation) -> SkipReason | None:
    """Editors hide a suggestion whose selected entry changes what was typed."""
    if situation.selected is None or situation.selected.startswith(situation.typed):
        return None
    return SkipReason("popup entry", "The entry selected in the popup does not begin with what you typed.")


def empty_file(situation: Situation) -> SkipReason | None:
    """Without context a suggestion is a blind guess."""
    if (situation.before + situation.after).strip():
        return None
    return SkipReason("empty file", "This file is still empty.")


def bulk_change(situation: Situation) -> SkipReason | None:
    """After a paste, a large undo, formatting or replacing, the user checks the result and is not writing."""
    edits = situation.edits
    apart = sum(not _touch(one, other) for one, other in pairwise(edits))
    pasted = any(_has_lines(edit.inserted) and edit.inserted not in situation.last_shown for edit in edits)
    if apart < CHANGES and not pasted and not any(_has_lines(edit.removed) for edit in edits):
        return None
    return SkipReason("bulk change", "Much text changed at once; suggestions continue when you type.")


def _touch(edit: Edit, following: Edit) -> bool:
    """Whether two edits are adjacent: keys typed fast arrive as several edits in one message."""
    end = following.start + len(following.removed)
    return edit.start <= end and following.start <= edit.start + len(edit.inserted)


def _has_lines(text: str) -> bool:
    """Whether there is more than one line of text, not counting the line ends and indentation that Enter adds."""
    return _LINE_END.search(text.strip()) is not None


def inside_word(situation: Situation) -> SkipReason | None:
    """The user is editing a name, and a suggestion would have to replace the rest of it."""
    if ("x" + situation.rest[:1]).isidentifier() and situation.rest:
        return SkipReason("inside a word", "The cursor is inside a word.")
    return None


def middle_of_line(situation: Situation) -> SkipReason | None:
    """If code follows on the line, most model output repeats it."""
    if _AFTER_OK.match(situation.rest):
        return None
    return SkipReason("middle of a line", "More than closing brackets and punctuation follows on this line.")


def deleted(situation: Situation) -> SkipReason | None:
    """Deleting at the end of a word usually means correcting it."""
    if situation.eagerness == "eager" or not situation.edits:
        return None
    edit = situation.edits[-1]
    if edit.removed and not edit.inserted and _WORD_END.search(situation.line):
        return SkipReason("just deleted", "You have just deleted text; suggestions continue when you type.")
    return None


def long_line(situation: Situation) -> SkipReason | None:
    """Very long lines are data or minified code, which nobody writes by hand."""
    if len(situation.line) + len(situation.rest) <= LONG_LINE:
        return None
    return SkipReason("long line", f"This line is longer than {LONG_LINE} characters.")


def in_string(situation: Situation) -> SkipReason | None:
    """Prose cannot be predicted from the code: docstrings, messages. A key or a path often can."""
    if situation.kind != "string" or situation.eagerness == "eager":
        return None
    start = _SHORT_STRING.search(situation.line)
    if situation.eagerness == "balanced" and start is not None and len(start[1].split()) < STRING_WORDS:
        return None
    return SkipReason("in a string", "The cursor is in the text of a string.")


def in_comment(situation: Situation) -> SkipReason | None:
    """Models predict prose badly. A comment line that already has a few words is worth a suggestion."""
    if situation.kind != "comment" or situation.eagerness == "eager":
        return None
    if situation.eagerness == "balanced" and _WHOLE_COMMENT.match(situation.line) and situation.line.endswith(" "):
        if len(_WORDS.findall(situation.line)) >= COMMENT_WORDS:
            return None
    return SkipReason("in a comment", "The cursor is in a comment.")


def finished(situation: Situation) -> SkipReason | None:
    """After `;`, `}`, `)` or a header's `:` most lines end.

    In published code, depending on the language, 1 to 3 % of lines continue after a `;` that ends a statement, 3 to
    48 % after `}`, 15 to 36 % after `)` and 38 to 73 % after `]`, which only calm skips. A space after it means that
    the line continues.
    """
    line = situation.line
    closed = line.endswith((";", "}", ")")) or situation.eagerness == "calm" and line.endswith("]")
    if situation.eagerness == "eager" or not (closed or _is_header(line, situation.language)):
        return None
    return SkipReason("statement finished", "The statement before the cursor looks complete.")


def _is_header(line: str, language_id: str | None) -> bool:
    """Whether the line ends with the colon of a block or case, not of an annotation or dictionary."""
    if not line.endswith(":"):
        return False
    language = get(language_id)
    if language is not None and language.indentation_sensitive:
        return is_python_header(line) or _END_OF_HEADER.match(line) is not None
    return _CASE_LABEL.match(line) is not None


def unchosen_line(situation: Situation) -> SkipReason | None:
    """Anything can follow on an empty line at the top level."""
    if situation.eagerness != "calm" or situation.line or _expects_block(situation):
        return None
    return SkipReason("empty line at the top", "Anything can follow on an empty line at the top level.")


def few_letters(situation: Situation) -> SkipReason | None:
    """One or two letters of a name are too little for calm, unless a dot before them narrows the choice."""
    if situation.eagerness != "calm" or not _FEW_LETTERS.search(situation.line):
        return None
    return SkipReason("few letters", "One or two letters are too few to complete a word.")


RULES: tuple[Rule, ...] = (
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


def reason_to_skip(situation: Situation) -> SkipReason | None:
    """The reason of the first rule that applies; None if the user invoked suggestions by hand."""
    if situation.invoked:
        return None
    return next((reason for rule in RULES if (reason := rule(situation)) is not None), None)


def lines_to_request(situation: Situation) -> Lines:
    """Several lines on an empty line that begins a block, otherwise one."""
    if situation.multiline == "never" or situation.line.strip() or situation.rest.strip():
        return "one"
    return "auto" if _expects_block(situation) else "one"


def _expects_block(situation: Situation) -> bool:
    if get(situation.language) is None:
        return False
    return expects_block(situation.before + situation.after, len(situation.before), situation.language)

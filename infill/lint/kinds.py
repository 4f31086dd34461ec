"""The kinds of findings: their codes and messages, and the edits they propose.

A new kind is an entry in `KINDS` or `STYLE` and a section in `kinds.md`. Must not know the model, nor how edits are
found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infill.findings import Range

PAGE = Path(__file__).with_suffix(".md")  # describes each kind in a section of its own


@dataclass(frozen=True)
class Kind:
    """code: as in settings and `gesso: ignore`. message: a template with {old} and {new}."""

    code: str
    title: str
    message: str


def _by_code(*kinds: Kind) -> dict[str, Kind]:
    return {kind.code: kind for kind in kinds}


KINDS = _by_code(
    Kind("misspelled", "a name or key is misspelled", "`{old}` may be a misspelling of `{new}`."),
    Kind("copy-paste", "a copied line keeps an old name", "`{old}` may be left over from a copied line; use `{new}`?"),
    Kind("missing-self", "a member is used without its object", "`{old}` is not defined here; did you mean `{new}`?"),
    Kind("wrong-name", "a variable may be wrong", "`{old}` looks like the wrong name here; `{new}` fits better."),
    Kind("wrong-member", "a member may be wrong", "`{old}` looks like the wrong member here; `{new}` fits better."),
    Kind("swapped-arguments", "two arguments are swapped", "`{old}` may be swapped; `{new}` fits better."),
    Kind("wrong-operator", "an operator may be wrong", "`{old}` may be the wrong operator; `{new}` fits better."),
    Kind("off-by-one", "a number may be off by one", "`{old}` may be off by one; `{new}` fits better."),
    Kind("wrong-negation", "a condition may be inverted", "This condition may be inverted; did you mean `{new}`?"),
    Kind("missing-await", "an `await` may be missing", "An `await` may be missing; did you mean `{new}`?"),
    Kind("missing-return", "a `return` may be missing", "A `return` may be missing; did you mean `{new}`?"),
    Kind("missing-f", "a string is not interpolated", "This string is not interpolated; did you mean `{new}`?"),
)
STYLE = _by_code(  # compared with the rest of the file
    Kind(
        "style-naming",
        "a name that breaks the naming convention of the file",
        "`{old}` breaks the naming convention of this file; use `{new}`.",
    ),
    Kind("style-quotes", "different quotes from the rest of the file", "The rest of this file would write `{new}`."),
    Kind("style-comparison", "a comparison unlike the rest of the file", "The rest of this file would write `{new}`."),
    Kind(
        "style-format",
        "string formatting unlike the rest of the file",
        "The rest of this file uses f-strings: `{new}`.",
    ),
    Kind("style-literal", "an empty list or dict unlike the rest of the file", "The rest of this file writes `{new}`."),
)
ALL_KINDS = {**KINDS, **STYLE}
ON_BY_DEFAULT = frozenset(KINDS)
STRUCTURAL = frozenset(("missing-self",))  # kinds that need no model: the syntax tree is rarely wrong
STRUCTURAL_LANGUAGES = frozenset(("python", "javascript", "typescript", "tsx"))


def link(code: str) -> str:
    """URI of the section of the local page that describes the kind."""
    return f"{PAGE.as_uri()}#{code}"


def help_text(code: str) -> str:
    """The description of the kind as Markdown, without its heading; empty if there is none."""
    _, _, after = PAGE.read_text("utf-8").partition(f"\n## {code}\n")
    return after.partition("\n## ")[0].strip()


@dataclass(frozen=True)
class Edit:
    """text[start:end] -> replacement, proposed as a finding of the kind `code`."""

    start: int
    end: int
    replacement: str
    code: str

    def message(self, text: str) -> str:
        """The message of the kind for this edit of `text`; long parts are shortened."""
        return ALL_KINDS[self.code].message.format(
            old=_short(text[self.start : self.end]), new=_short(self.replacement)
        )


def is_structural(code: str, language: str | None) -> bool:
    """Whether a kind needs no model in a language."""
    return code in STRUCTURAL and language in STRUCTURAL_LANGUAGES


@dataclass(frozen=True)
class StyleEdit:
    """An edit that follows the convention of the file. also: other ranges that get the same replacement.

    same, other: how often the file follows the convention and how often it does not, this edit included.
    """

    edit: Edit
    same: int
    other: int
    also: tuple[Range, ...] = ()

    @property
    def ranges(self) -> list[Range]:
        """All ranges that change, in text order."""
        return sorted([(self.edit.start, self.edit.end), *self.also])


def _short(part: str) -> str:
    line = " ".join(part.split())
    return line if len(line) <= 60 else line[:59] + "…"

"""The kinds of finding: their codes, what a user reads, and an edit that might be one.

The tables to extend for a new kind; what each is about, with examples, stands in `lint_kinds.md` beside this file. Must
not know the model, nor how edits are found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infill.findings import Range

PAGE = Path(__file__).with_suffix(".md")  # what the kinds are about, a section for each


@dataclass(frozen=True)
class Kind:
    """code: as in settings and `gesso: ignore`. message: with {old} and {new}."""

    code: str
    title: str
    message: str


KINDS: dict[str, Kind] = {
    kind.code: kind
    for kind in (
        Kind("misspelled", "a name or key spelled otherwise elsewhere", "`{old}` may be a slip of `{new}`."),
        Kind(
            "copy-paste", "a name left over from the line above", "`{old}` may be left from a copy; `{new}` fits here."
        ),
        Kind("missing-self", "a member without its object", "`{old}` is no name here; `{new}` may be meant."),
        Kind("wrong-name", "another variable is meant", "`{old}` looks like the wrong name here; `{new}` fits better."),
        Kind("wrong-attribute", "another member is meant", "`{old}` looks like the wrong member; `{new}` fits better."),
        Kind(
            "swapped-arguments", "two arguments in each other's place", "`{old}` may be swapped: `{new}` fits better."
        ),
        Kind("wrong-operator", "another operator or comparison is meant", "`{old}` may be meant as `{new}`."),
        Kind("wrong-literal", "off by one, or another literal is meant", "`{old}` may be meant as `{new}`."),
        Kind("missing-not", "a condition the wrong way round", "A negation may be missing: `{new}`."),
        Kind("missing-await", "a coroutine that is not awaited", "`await` may be missing: `{new}`."),
        Kind("missing-return", "a result that is not returned", "`return` may be missing: `{new}`."),
    )
}
STYLE: dict[str, Kind] = {
    kind.code: kind
    for kind in (
        Kind(
            "style-naming",
            "a name in another convention than the others of the file",
            "The other names here are not written like `{old}`; `{new}` would be.",
        ),
        Kind("style-quotes", "other quotes than the file has", "The other strings of this file would have it `{new}`."),
        Kind("style-comparison", "a comparison otherwise than in the file", "Elsewhere in this file it is `{new}`."),
        Kind("style-format", "a text put together otherwise", "Elsewhere in this file it is an f-string: `{new}`."),
        Kind("style-literal", "an empty list or dict otherwise", "Elsewhere in this file it is `{new}`."),
    )
}  # against the file's own habits; off unless asked for
ALL_KINDS = {**KINDS, **STYLE}


def link(code: str) -> str:
    """Where one reads about the kind: a section of a page on this machine, as a URI."""
    return f"{PAGE.as_uri()}#{code}"


def help_text(code: str) -> str:
    """What the page says of the kind, as Markdown, without its heading; empty where it says nothing."""
    _, _, after = PAGE.read_text("utf-8").partition(f"\n## {code}\n")
    return after.partition("\n## ")[0].strip()


@dataclass(frozen=True)
class Edit:
    """text[start:end] -> replacement, which a finding of the kind `code` would propose."""

    start: int
    end: int
    replacement: str
    code: str

    def message(self, text: str) -> str:
        """In words for a user; long parts are cut."""
        return ALL_KINDS[self.code].message.format(
            old=_short(text[self.start : self.end]), new=_short(self.replacement)
        )


@dataclass(frozen=True)
class StyleEdit:
    """An edit against the file's habit. also: further places that must read the same replacement.

    same, other: how often the file has it as the edit would, and otherwise, this one included.
    """

    edit: Edit
    same: int
    other: int
    also: tuple[Range, ...] = ()

    @property
    def places(self) -> list[Range]:
        """All that change, in text order."""
        return sorted([(self.edit.start, self.edit.end), *self.also])


def _short(part: str) -> str:
    line = " ".join(part.split())
    return line if len(line) <= 60 else line[:59] + "…"

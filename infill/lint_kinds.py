"""The kinds of finding: their codes, what a user reads, and an edit that might be one.

The one table to extend for a new kind. Must not know the model, nor how edits are found.
"""

from __future__ import annotations

from dataclasses import dataclass


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


@dataclass(frozen=True)
class Edit:
    """text[start:end] -> replacement, which a finding of the kind `code` would propose."""

    start: int
    end: int
    replacement: str
    code: str

    def message(self, text: str) -> str:
        """In words for a user; long parts are cut."""
        return KINDS[self.code].message.format(old=_short(text[self.start : self.end]), new=_short(self.replacement))


def _short(part: str) -> str:
    line = " ".join(part.split())
    return line if len(line) <= 60 else line[:59] + "…"

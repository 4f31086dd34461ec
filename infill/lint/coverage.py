"""What lint did not judge, and why: other languages, syntax errors, generated code, kinds that are off.

Must not know how findings are made or shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from infill.code.syntax import parse
from infill.lint.kinds import KINDS, STYLE
from infill.lint.suppressions import is_skipped

SYNTAX_ERRORS = "syntax errors"
OTHER_LANGUAGE = "another language"
GENERATED = "generated or third-party code"
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class NotJudged:
    """A file or folder that was not judged. part: whether the rest of the file was. detail: the language, if that is
    the reason."""

    path: Path
    reason: str
    detail: str | None = None
    part: bool = False
    is_folder: bool = False


@dataclass
class Coverage:
    """judged: number of files that were judged, at least in part. kinds_off: codes of kinds that nothing looked for."""

    kinds_off: tuple[str, ...] = ()
    judged: int = 0
    not_judged: list[NotJudged] = field(default_factory=list)

    def add(self, path: Path, reason: NotJudged | None) -> None:
        if reason is not None:
            self.not_judged.append(reason)
        if reason is None or reason.part:
            self.judged += 1

    def sentence(self) -> str:
        """What was not judged, in words; empty if everything was."""
        counts = Counter((one.reason, one.part, one.is_folder) for one in self.not_judged)
        parts = []
        for (reason, part, is_folder), number in counts.items():
            files = f"{number} {'folder' if is_folder else 'file'}{'' if number == 1 else 's'}"
            languages = sorted({one.detail for one in self.not_judged if one.reason == reason and one.detail})
            why = f"{reason}: {', '.join(languages)}" if languages else reason
            parts.append(f"parts of {files} ({why})" if part else f"{files} ({why})")
        if self.kinds_off:
            kinds = "kind" if len(self.kinds_off) == 1 else "kinds"
            parts.append(f"{len(self.kinds_off)} {kinds} ({', '.join(self.kinds_off)})")
        return f"Not judged: {'; '.join(parts)}." if parts else ""


def kinds_off(judged: Set[str], off: Set[str]) -> tuple[str, ...]:
    """The kinds of mistakes that nothing looks for; matters of style are not counted. judged: those that the linter
    knows."""
    return tuple(code for code in KINDS if code in off or code not in judged)


def why_not_judged(path: Path, text: str, language: str | None, languages: Set[str], on: Set[str]) -> NotJudged | None:
    """Why a file is not judged, or only in part. languages: those of the thresholds; style needs a grammar only."""
    if language is None or (language not in languages and not on & STYLE.keys()):
        return NotJudged(path, OTHER_LANGUAGE, language or "unknown")
    if is_skipped(str(path), text):
        return NotJudged(path, GENERATED)
    tree = parse(text.replace("\r\n", "\n"), language)
    if tree is None:
        return NotJudged(path, OTHER_LANGUAGE, language)
    return NotJudged(path, SYNTAX_ERRORS, part=True) if tree.root.has_error else None

"""Where lint keeps quiet: in what no person writes or owns here, in broken code, and where a comment asks for it.

Knows paths, text and trees. Must not know the model, nor kinds of findings but by their codes.
"""

from __future__ import annotations

import re
from pathlib import PurePath

from infill.code.languages import Language
from infill.code.syntax import SyntaxTree, error_nodes
from infill.findings import ignores
from infill.lint.kinds import Edit

LONGEST = 500_000  # characters
HEAD = 2_000
MEAN_LINE, LONGEST_LINE = 120, 2_000  # characters, of code that a program put together
_VENDORED = frozenset(
    "vendor vendored _vendor _vendored third_party thirdparty third-party node_modules extern externals dist "
    "site-packages .venv venv .tox .nox .git __pycache__ bower_components".split()
)
_WRITTEN_NAME = re.compile(
    r"(_pb2(_grpc)?\.pyi?|\.min\.\w+|\.d\.[mc]?ts|(lex|yacc|parse)tab\.py|_version\.py|\.pb\.go)$"
)
_GENERATED = re.compile(
    r"^[ \t]*(?:#|//|/?\*|\"\"\").*(?:@generated\b|\bDO NOT (?:EDIT|MODIFY)\b|\b[Aa]uto-?(?:matically )?generated\b"
    r"|\b[Gg]enerated (?:by|from|using|with|automatically)\b)",
    re.MULTILINE,
)


def why_quiet(path: str | None, text: str) -> str | None:
    """A sentence where the whole file is left alone, else None."""
    if path is not None:
        pure = PurePath(path)
        if _VENDORED & {part.lower() for part in pure.parts[:-1]}:
            return "The file lies in a folder of other people's code."
        if _WRITTEN_NAME.search(pure.name):
            return "The name of the file says that a program writes it."
    if len(text) > LONGEST:
        return f"The file is longer than {LONGEST:,} characters."
    if _GENERATED.search(text[:HEAD]):
        return "The file says at its top that a program wrote it."
    lines = text.count("\n") + 1
    if len(text) > MEAN_LINE * lines or any(len(line) > LONGEST_LINE for line in text.split("\n")):
        return "The lines of the file are so long that a program wrote it."
    return None


class Quiet:
    """The lines of one text where nothing, or not every kind, is shown."""

    def __init__(self, tree: SyntaxTree) -> None:
        self.text = tree.text
        self._broken: set[int] = set()
        for span in error_nodes(tree):
            self._broken.update(range(self._line(span.start), self._line(span.end) + 1))
        self._comments = _comments(tree.text, tree.language)

    def allows(self, edit: Edit) -> bool:
        """Whether the edit stands on sound lines, of which none is told to ignore its kind."""
        lines = range(self._line(edit.start), self._line(edit.end) + 1)
        for line in lines:
            if line in self._broken or any(ignores(said, edit.code) for said in self._comments.get(line, ())):
                return False
        return True

    def _line(self, offset: int) -> int:
        return self.text.count("\n", 0, offset)


def _comments(text: str, language: Language) -> dict[int, list[str]]:
    """By line number from 0 the comments that may say `gesso: ignore`: those of the line, and those above it on lines
    without code."""
    found: dict[int, list[str]] = {}
    if "gesso:" not in text:
        return found
    lines = text.split("\n")
    for number, line in enumerate(lines):
        at = line.find(language.line_comment)
        if at < 0 and "/*" in line:
            at = line.find("/*")
        if at < 0 or "gesso:" not in line[at:]:
            continue
        target = number
        if not line[:at].strip():
            target = next((n for n in range(number + 1, len(lines)) if lines[n].strip()), number)
        found.setdefault(target, []).append(line[at:])
    return found

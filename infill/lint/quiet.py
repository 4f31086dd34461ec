"""Where lint keeps quiet: in what no person writes or owns here, in broken code, and where a comment asks for it.

Knows paths, text and trees. Must not know the model, nor kinds of findings but by their codes.
"""

from __future__ import annotations

from infill.code.generated import generated_sign, is_vendored
from infill.code.languages import Language
from infill.code.syntax import SyntaxTree, error_nodes
from infill.findings import ignores
from infill.lint.kinds import Edit

LONGEST = 500_000  # characters


def is_left_alone(path: str | None, text: str) -> bool:
    """Whether lint skips the whole file, because it is vendored, generated, minified or very long."""
    if len(text) > LONGEST or (path is not None and is_vendored(path)):
        return True
    return generated_sign(path, text, strict=True) is not None


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

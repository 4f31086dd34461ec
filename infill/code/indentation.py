"""The indentation of a new line, and whether a block is expected there.

Works on text, so that it also serves half-typed code. Must not know syntax trees, models or completions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from infill.code.brackets import scan
from infill.code.languages import Language, get

MAX_COMMENTS = 50
_INDENTATION = re.compile(r"[ \t\f]*+")
_PYTHON_HEADER = re.compile(r"(?:async\s+)?(?:def|class|if|elif|else|for|while|with|try|except|finally|match|case)\b")
_NOT_A_BLOCK = re.compile(r"[=(,:?&|\[$]$|\breturn$")
_NOT_A_BLOCK_IN_JAVASCRIPT = re.compile(r"\b(?:import|export|const|let|var|type)$")
_CASE_LABEL = re.compile(r"\s*(?:case\b.*|default|public|private|protected)\s*:$")


def indentation(text: str, offset: int) -> str:
    """The white space at the start of the line that contains `offset`."""
    match = _INDENTATION.match(text, text.rfind("\n", 0, offset) + 1)
    return match[0] if match else ""


def column_width(white_space: str) -> int:
    return len(white_space.replace("\f", "").expandtabs(8))


def line_end(text: str, offset: int) -> int:
    end = text.find("\n", offset)
    return len(text) if end < 0 else end


def lines_after(text: str, offset: int) -> Iterator[tuple[str, int]]:
    """The lines after the one that contains `offset`, with their offsets."""
    start = line_end(text, offset) + 1
    while start <= len(text):
        end = line_end(text, start)
        yield text[start:end], start
        start = end + 1


def _code_end(text: str, offset: int, language: Language | None) -> int:
    """The end of the last code before `offset`, skipping white space and comments: at most MAX_COMMENTS in a row, but
    all lines that begin with the mark of a comment.
    """
    end = _without_space(text, offset)
    for _ in range(MAX_COMMENTS):
        if language is None or not end:
            break
        if language.line_comment in text[text.rfind("\n", 0, end) + 1 : end]:
            top = _comment_lines_start(text, end, language.line_comment)
            if top < end and not scan(text, language.id, top).inside:
                end = _without_space(text, top)
                continue
            reading = scan(text, language.id, end)
            if reading.inside == language.line_comment:
                end = _without_space(text, reading.resume)
                continue
        if not language.indentation_sensitive and text.endswith("*/", 0, end):
            end = _without_space(text, max(0, text.rfind("/*", 0, end)))
            continue
        break
    return end


def _comment_lines_start(text: str, end: int, mark: str) -> int:
    """The start of the lines up to `end` that are blank or begin with `mark`; `end` if the last one does not."""
    top = end
    while top:
        start = text.rfind("\n", 0, top - 1) + 1
        line = text[start:top].lstrip()
        if line and not line.startswith(mark):
            break
        top = start
    return top


def _without_space(text: str, end: int) -> int:
    while end and text[end - 1].isspace():
        end -= 1
    return end


def _logical_start(text: str, end: int, language_id: str | None) -> int:
    """The start of the line on which the statement that ends at `end` begins; brackets and strings span lines."""
    start = text.rfind("\n", 0, end) + 1
    for opened, closed in reversed(scan(text, language_id, end).multiline):
        if opened < start < closed:
            start = text.rfind("\n", 0, opened) + 1
    return start


def expects_block(text: str, offset: int, language_id: str | None) -> bool:
    """Whether `offset` follows a block header whose body is missing or empty.

    In Python also whether it follows the docstring of an otherwise empty function or class.
    """
    language = get(language_id)
    rest = text[offset : line_end(text, offset)].strip()
    end = _code_end(text, offset, language)
    if language and language.indentation_sensitive:
        return not rest and _python_header_without_body(text, offset, end)
    if not end or text[end - 1] != "{":
        return False
    before = text[text.rfind("\n", 0, end) + 1 : end - 1].rstrip()
    if _NOT_A_BLOCK.search(before) and not _CASE_LABEL.match(before):
        return False
    if language and language.lexis == "javascript" and _NOT_A_BLOCK_IN_JAVASCRIPT.search(before):
        return False
    if rest:
        return rest[0] == "}"
    width = column_width(indentation(text, end - 1))
    for line, start in lines_after(text, offset):
        if line.strip():
            return line.lstrip()[0] == "}" or column_width(indentation(text, start)) <= width
    return True


def _python_header_without_body(text: str, offset: int, end: int) -> bool:
    start = _logical_start(text, end, "python")
    if text.endswith(('"""', "'''"), 0, end) and text[start:end].lstrip("rRuU \t")[:1] in ("'", '"'):
        end = _code_end(text, start, get("python"))
        start = _logical_start(text, end, "python")
        if not re.match(r"\s*(?:async\s+)?(?:def|class)\b", text[start:end]):
            return False
    if not is_python_header(text[start:end]):
        return False
    width = column_width(indentation(text, start))
    for line, at in lines_after(text, offset):
        if line.strip() and not line.lstrip().startswith("#"):
            return column_width(indentation(text, at)) <= width
    return True


def is_python_header(statement: str) -> bool:
    """Whether a Python statement, given with all its lines, opens a block on the lines below it."""
    if not _PYTHON_HEADER.match(statement.lstrip()):
        return False
    end = _code_end(statement, len(statement), get("python"))
    return statement.endswith(":", 0, end) and not scan(statement, "python", end).open


def indentation_at(text: str, offset: int, language_id: str | None) -> str:
    """The white space that a new line at `offset` should start with.

    The indentation of the statement before it, plus one level after a block header or an open bracket.
    """
    language = get(language_id)
    last = _without_space(text, offset)
    if not last:
        return ""
    start = _logical_start(text, last, language_id)
    base = indentation(text, start)
    end = _code_end(text, last, language)
    if end <= start:
        return base
    line_start = text.rfind("\n", 0, end) + 1
    opened = any(bracket.offset >= line_start for bracket in scan(text, language_id, end).open)
    line = text[start:end].strip()
    if line.endswith(":"):
        braces = language is not None and not language.indentation_sensitive
        opened = opened or not braces or _CASE_LABEL.match(line) is not None
    return base + indent_unit(text) if opened else base


def indent_unit(text: str) -> str:
    """One level of indentation in this text: a tab or its most frequent number of spaces; four if there is none."""
    steps: Counter[str] = Counter()
    previous = ""
    for count, match in enumerate(re.finditer(r"^([ \t]*)(?=[^\s*])", text, re.MULTILINE)):
        current = match[1]
        if current.startswith(previous) and current != previous:
            step = current[len(previous) :]
            above = text[max(0, match.start() - 200) : match.start()].rstrip()
            weight = 3 if above.endswith((":", "{", "(", "[")) else 1
            if set(step) == {"\t"}:
                steps["\t"] += weight
            elif 2 <= len(step) <= 8 and "\t" not in step:
                steps[step] += weight
        previous = current
        if count >= 3000:
            break
    return steps.most_common(1)[0][0] if steps else "    "

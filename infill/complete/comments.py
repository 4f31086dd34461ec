"""Comments that a code model appends to a line of code, such as `print(greet("World"))  # Output: Hello, World!`.

They are rarely what the programmer would write, and take as long to decode as the code. Must not know the model.
"""

from __future__ import annotations

from infill.code.brackets import scan
from infill.code.languages import get

# After another character the mark belongs to text that the scanner does not know, as in `<p>http://a</p>`.
BEFORE_COMMENT = " \t;,(){}[]"


def without_comment(before: str, text: str, language_id: str | None, growing: bool = False) -> str:
    """A text for the rest of a line without a comment after its code.

    It stays if the line has nothing else, if the line above ends with a comment after code, as in a table, or if an
    earlier line ends with the same comment, such as `# type: ignore`. growing: the text may continue, so that the
    beginning of such a comment also stays.
    """
    language = get(language_id)
    if language is None or language.line_comment not in text:
        return text
    whole = before + text
    found = scan(whole, language_id)
    new = (at for at in found.line_comments if at >= len(before) and whole[max(0, at - 1) : at] in BEFORE_COMMENT)
    start = next((at - len(before) for at in new), None)
    line = before.rfind("\n") + 1
    if start is None or "\n" in text[:start] or not (before[line:] + text[:start]).strip():
        return text
    above = before.rfind("\n", 0, max(0, line - 1)) + 1
    comment = text[start:].rstrip()
    for at in found.line_comments:
        if at >= line or not before[before.rfind("\n", 0, at) + 1 : at].strip():
            continue
        earlier = before[at : before.find("\n", at)].rstrip()
        if at > above or earlier == comment or growing and earlier.startswith(comment):
            return text
    return text[:start].rstrip()

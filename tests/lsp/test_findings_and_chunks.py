"""Marks that move with the text, dismissals that follow it, and the parts of a text that are looked at apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lsprotocol import types

from infill.code.syntax import parse
from infill.findings import ignores
from lsp import chunks
from lsp.chunks import Chunk, chunks_in
from lsp.dismissals import Dismissals
from lsp.documents import Documents, Edit, Snapshot
from lsp.tracked_findings import TrackedFinding, shifted

TEXT = "value = first(alpha, beta)\n"


def finding(text: str, part: str, number: int = 1, nth: int = 0) -> TrackedFinding:
    start = -1
    for _ in range(nth + 1):
        start = text.index(part, start + 1)
    return TrackedFinding(number, start, start + len(part), part, "wrong-name", "", "other")


def edited(text: str, *edits: Edit) -> str:
    for edit in edits:
        assert text.startswith(edit.removed, edit.start)
        text = text[: edit.start] + edit.inserted + text[edit.start + len(edit.removed) :]
    return text


def version(text: str, edits: Sequence[Edit]) -> Snapshot:
    return Snapshot("file:///a.py", "python", 1, tuple(text.splitlines(keepends=True)), "utf-16", tuple(edits))


def after(text: str, part: str, *edits: Edit) -> str | None:
    """What a mark of `part` stands at after the edits, None where it is gone."""
    now = edited(text, *edits)
    kept = shifted([finding(text, part)], version(now, edits))
    return now[kept[0].start : kept[0].end] if kept else None


@pytest.mark.parametrize(
    ("edits", "stays"),
    [
        ([Edit(0, "", "# above\n")], True),
        ([Edit(26, "\n", "")], True),
        ([Edit(19, "", ")")], True),
        ([Edit(14, "", "*")], True),
        ([Edit(19, "", "s")], False),
        ([Edit(14, "", "_")], False),
        ([Edit(16, "", " ")], False),
        ([Edit(16, "p", "q")], False),
        ([Edit(14, "alpha", "")], False),
        ([Edit(14, "alpha", "alpha")], True),
        ([Edit(13, "(alp", "(")], False),
        ([Edit(13, "(", "")], False),
        ([Edit(8, "first(", "")], True),
        ([Edit(0, "value = ", ""), Edit(0, "", "x = "), Edit(15, "", "!")], True),
        ([Edit(0, "", "x"), Edit(20, "", "s")], False),
        ([Edit(0, "", "x"), Edit(19, "", "s")], False),
    ],
)
def test_a_mark_goes_with_its_own_text_only(edits: list[Edit], stays: bool) -> None:
    assert after(TEXT, "alpha", *edits) == ("alpha" if stays else None)


@settings(max_examples=300)
@given(st.data())
def test_a_mark_that_stays_stands_at_the_same_characters(data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from("ab(. \n"), min_size=4, max_size=30)))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    now, tags, edits = text, list(range(len(text))), []
    around, whole = list(range(max(0, start - 1), min(len(text), end + 1))), True
    for number in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(now)))
        stop = data.draw(st.integers(at, min(len(now), at + 3)))
        inserted = data.draw(st.text("ab( ", max_size=3))
        edits.append(Edit(at, now[at:stop], inserted))
        if inserted != now[at:stop]:
            tags[at:stop] = [1000 * (number + 1) + one for one in range(len(inserted))]
        now = now[:at] + inserted + now[stop:]
        whole = whole and _holds(tags, around)
    one = TrackedFinding(1, start, end, text[start:end], "code", "", "")
    kept = shifted([one], version(now, edits))
    for each in kept:
        assert tags[each.start : each.end] == list(range(start, end)) and each.text == now[each.start : each.end]
    if whole and start < end and 0 < start and end < len(text):
        assert kept, "no character of it, nor one beside it, was touched"


def _holds(tags: list[int], run: list[int]) -> bool:
    return any(tags[at : at + len(run)] == run for at in range(len(tags)))


def snapshots(*texts: str) -> list[Snapshot]:
    """Versions of one document."""
    documents = Documents()
    first = documents.open(types.TextDocumentItem("file:///a.py", "python", 0, texts[0]))
    found = [first]
    for version, text in enumerate(texts[1:], 1):
        identifier = types.VersionedTextDocumentIdentifier(version, "file:///a.py")
        found.append(documents.change(identifier, [types.TextDocumentContentChangeWholeDocument(text)]))
    return found


DISMISSED = "def f(a, b):\n    c = a\n    total = sum(a, c)\n    return total\n"


@pytest.mark.parametrize(
    ("now", "nth", "is_still"),
    [
        (DISMISSED, 0, True),
        ("import os\n\n" + DISMISSED, 0, True),
        (DISMISSED.replace("c = a", "c = b"), 0, True),
        (DISMISSED.replace("sum(a, c)", "sum(a, c, 0)"), 0, True),
        (DISMISSED.replace("    total = ", "        total = "), 0, True),
        (DISMISSED.replace("    total", "\n\n    total"), 0, True),
        (DISMISSED.replace("return total", "return 2").replace("c = a", "d = b"), 0, False),
        (DISMISSED.replace("sum(a, c)", "max(range(len(b)), a)"), 0, False),
        (DISMISSED + "\n\ndef g(a):\n    return sum(a)\n", 1, False),
    ],
)
def test_what_was_dismissed_is_known_where_it_was(now: str, nth: int, is_still: bool) -> None:
    before, later = snapshots(DISMISSED, now)
    dismissals = Dismissals()
    place = DISMISSED.index("sum(a")
    one = TrackedFinding(1, place + 4, place + 5, "a", "wrong-name", "", "b")
    dismissals.dismiss(before, one)
    starts = [at for at in range(len(now)) if now.startswith(("sum(a", "len(b)), a"), at)]
    at = starts[nth] + (4 if now.startswith("sum", starts[nth]) else 9)
    again = TrackedFinding(7, at, at + 1, "a", "wrong-name", "", "b")
    assert dismissals.is_dismissed(later, again) is is_still
    assert not dismissals.is_dismissed(later, TrackedFinding(8, at, at + 1, "a", "wrong-name", "", "c"))
    assert not dismissals.is_dismissed(later, TrackedFinding(9, at, at + 1, "a", "misspelled", "", "b"))


def test_the_other_place_on_the_same_line_was_not_dismissed() -> None:
    text = "x = 1\ny = f(abc, abc)\nz = 2\n"
    (snapshot,) = snapshots(text)
    dismissals = Dismissals()
    dismissals.dismiss(snapshot, finding(text, "abc"))
    assert dismissals.is_dismissed(snapshot, finding(text, "abc"))
    assert not dismissals.is_dismissed(snapshot, finding(text, "abc", nth=1))


def test_a_dismissal_follows_its_line_through_many_edits() -> None:
    lines = ["a = 1", "x = wrnog", "b = 2"]
    texts = ["\n".join(lines)]
    for number in range(12):
        lines[number % 3] += f" + {number}" if number % 3 != 1 else "0"
        texts.append("\n".join(lines))
    versions = snapshots(*texts)
    dismissals = Dismissals()
    dismissals.dismiss(versions[0], finding(texts[0], "wrnog"))
    assert all(dismissals.is_dismissed(one, finding(one.text, "wrnog")) for one in versions)
    assert not Dismissals().is_dismissed(versions[0], finding(texts[0], "wrnog"))


def parts(text: str, language: str = "python", start: int = 0, end: int = 10**9) -> list[str]:
    tree = parse(text, language)
    assert tree is not None
    found = chunks_in(tree, start, end)
    assert all(text[one.start : one.end] == one.text for one in found)
    assert all(one.end < other.start for one, other in zip(found, found[1:], strict=False))
    return [one.text for one in found]


PYTHON = """\
import os

# about f

# still about f
@cache
def f():
    return 1  # one

x = 1; y = 2
# the end
"""


def test_parts_are_whole_lines_with_the_comments_above() -> None:
    function = PYTHON[PYTHON.index("# about") : PYTHON.index("\n\nx")]
    assert parts(PYTHON) == ["import os", function, "x = 1; y = 2"]
    assert parts(PYTHON.replace("\n", "\r\n"))[2].strip() == "x = 1; y = 2"


def test_only_what_lies_near() -> None:
    at = PYTHON.index("return")
    assert parts(PYTHON, "python", at, at + 1) == [PYTHON[PYTHON.index("# about") : PYTHON.index("\n\nx")]]
    assert parts("", "python") == []


CLASS = "class A(B):\n    x = 1\n\n    def f(self):\n        return 1\n\n    def g(self):\n        return 2\n"
GO = "package a\n\nfunc f() int {\n\tx := 1\n\treturn x\n}\n"
TYPESCRIPT = "export class A {\n  x = 1;\n  f() { return 1 }\n}\n"


@pytest.mark.parametrize(
    ("text", "language", "wanted"),
    [
        (
            CLASS,
            "python",
            ["class A(B):\n    x = 1", "    def f(self):\n        return 1", "    def g(self):\n        return 2"],
        ),
        (GO, "go", ["package a", "func f() int {\n\tx := 1", "\treturn x"]),
        (TYPESCRIPT, "typescript", ["export class A {\n  x = 1;", "  f() { return 1 }"]),
    ],
)
def test_of_what_is_long_the_members(monkeypatch: pytest.MonkeyPatch, text: str, language: str, wanted: Any) -> None:
    if language != "go":
        assert parts(text, language) == [text.rstrip().removesuffix("\n")]
    monkeypatch.setattr(chunks, "LONG", 20)
    joined = "\n".join(parts(text, language))
    assert all(one.strip() in joined for one in wanted) and len(parts(text, language)) > 1


def test_of_what_is_broken_the_sound_members() -> None:
    broken = CLASS.replace("return 1", "return (")
    assert parts(broken) == [] or all("return (" not in one for one in parts(broken))
    assert parts("def f():\n    return (\n\ndef g():\n    return 2\n")[-1].endswith("return 2")


def test_data_that_is_too_long_is_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LONGEST", 100)
    assert parts("x = [" + "1, " * 100 + "]\ny = 1\n") == ["y = 1"]


def test_a_part_is_its_text() -> None:
    tree = parse("😀 = 1\nx = 2\n", "python")
    assert tree is not None
    assert Chunk(6, 11, "x = 2") in chunks_in(tree, 0, 100)


@pytest.mark.parametrize(
    ("line", "is_ignored"),
    [
        ("x = 1  # gesso: ignore", True),
        ("x = 1  # why not  # gesso:ignore", True),
        ("f(); // gesso: ignore[misspelled, wrong-name]", True),
        ("f(); // gesso: ignore[misspelled]", False),
        ("f(); // gesso: ignore[misspelled] gesso: ignore[wrong-name]", True),
        ("x = 1  # gesso: ignored", False),
        ("x = 1  # ignore", False),
    ],
)
def test_the_comment_that_ignores(line: str, is_ignored: bool) -> None:
    assert ignores(line, "wrong-name") is is_ignored

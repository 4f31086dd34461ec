"""Findings and dismissals that follow the text, and the chunks of a text."""

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
    """The text that a finding at `part` covers after the edits; None if it was dropped."""
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
def test_a_finding_is_dropped_only_with_its_own_text(edits: list[Edit], stays: bool) -> None:
    assert after(TEXT, "alpha", *edits) == ("alpha" if stays else None)


@settings(max_examples=300)
@given(st.data())
def test_a_kept_finding_covers_the_same_characters(data: st.DataObject) -> None:
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
        assert kept, "no character in or next to it changed"


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
def test_a_dismissed_finding_is_recognized_at_its_position(now: str, nth: int, is_still: bool) -> None:
    before, later = snapshots(DISMISSED, now)
    dismissals = Dismissals()
    start = DISMISSED.index("sum(a")
    one = TrackedFinding(1, start + 4, start + 5, "a", "wrong-name", "", "b")
    dismissals.dismiss(before, one)
    starts = [at for at in range(len(now)) if now.startswith(("sum(a", "len(b)), a"), at)]
    at = starts[nth] + (4 if now.startswith("sum", starts[nth]) else 9)
    again = TrackedFinding(7, at, at + 1, "a", "wrong-name", "", "b")
    assert dismissals.is_dismissed(later, again) is is_still
    assert not dismissals.is_dismissed(later, TrackedFinding(8, at, at + 1, "a", "wrong-name", "", "c"))
    assert not dismissals.is_dismissed(later, TrackedFinding(9, at, at + 1, "a", "misspelled", "", "b"))


def test_the_same_finding_elsewhere_on_the_line_is_not_dismissed() -> None:
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


def chunk_texts(text: str, language: str = "python", start: int = 0, end: int = 10**9) -> list[str]:
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


def test_chunks_are_whole_lines_with_the_comments_above() -> None:
    function = PYTHON[PYTHON.index("# about") : PYTHON.index("\n\nx")]
    assert chunk_texts(PYTHON) == ["import os", function, "x = 1; y = 2"]
    assert chunk_texts(PYTHON.replace("\n", "\r\n"))[2].strip() == "x = 1; y = 2"


def test_only_chunks_that_overlap_the_range() -> None:
    at = PYTHON.index("return")
    assert chunk_texts(PYTHON, "python", at, at + 1) == [PYTHON[PYTHON.index("# about") : PYTHON.index("\n\nx")]]
    assert chunk_texts("", "python") == []


CLASS = "class A(B):\n    x = 1\n\n    def f(self):\n        return 1\n\n    def g(self):\n        return 2\n"
GO = "package a\n\nfunc f() int {\n\tx := 1\n\treturn x\n}\n"
TYPESCRIPT = "export class A {\n  x = 1;\n  f() { return 1 }\n}\n"


@pytest.mark.parametrize(
    ("text", "language", "expected"),
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
def test_long_definitions_are_split_into_members(
    monkeypatch: pytest.MonkeyPatch, text: str, language: str, expected: Any
) -> None:
    if language != "go":
        assert chunk_texts(text, language) == [text.rstrip().removesuffix("\n")]
    monkeypatch.setattr(chunks, "LONG", 20)
    joined = "\n".join(chunk_texts(text, language))
    assert all(part.strip() in joined for part in expected) and len(chunk_texts(text, language)) > 1


def test_broken_definitions_are_split_into_valid_members() -> None:
    broken = CLASS.replace("return 1", "return (")
    assert chunk_texts(broken) == [] or all("return (" not in one for one in chunk_texts(broken))
    assert chunk_texts("def f():\n    return (\n\ndef g():\n    return 2\n")[-1].endswith("return 2")


def test_very_long_data_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LONGEST", 100)
    assert chunk_texts("x = [" + "1, " * 100 + "]\ny = 1\n") == ["y = 1"]


def test_offsets_count_characters() -> None:
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
def test_ignore_comments(line: str, is_ignored: bool) -> None:
    assert ignores(line, "wrong-name") is is_ignored

"""The document store, compared with plain strings edited by an independent model of the specification."""

import logging
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lsprotocol import types

from lsp import documents
from lsp.documents import DocumentError, Documents, Edit

URI = "file:///work/thing.py"
ENCODINGS = ["utf-8", "utf-16", "utf-32"]
PIECES = st.sampled_from(
    ["\r\n", "\n", "\r", "a", "bc", " ", "\t", "😀", "👍🏽", "e\u0301", "漢", "\f", "\u2028", "\x85", "\x0b"]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)
CODECS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}


def model_lines(text: str) -> list[tuple[int, int]]:
    """Start and end of every line without its line end, character by character."""
    lines, start, at = [], 0, 0
    while at < len(text):
        if text[at] in "\r\n":
            lines.append((start, at))
            at += 2 if text[at : at + 2] == "\r\n" else 1
            start = at
        else:
            at += 1
    return [*lines, (start, len(text))]


def model_offset(text: str, line: int, column: int, encoding: str) -> int:
    lines = model_lines(text)
    if line >= len(lines):
        return len(text)
    at, end = lines[line]
    codec, size = CODECS[encoding]
    while at < end:
        column -= len(text[at].encode(codec)) // size
        if column < 0:
            break
        at += 1
    return at


def span(start_line: int, start: int, end_line: int, end: int) -> types.Range:
    return types.Range(types.Position(start_line, start), types.Position(end_line, end))


def partial(where: types.Range, text: str) -> types.TextDocumentContentChangePartial:
    return types.TextDocumentContentChangePartial(where, text)


def whole(text: str) -> types.TextDocumentContentChangeWholeDocument:
    return types.TextDocumentContentChangeWholeDocument(text)


def opened(text: str, encoding: str = "utf-16", uri: str = URI, language_id: str = "python") -> Documents:
    store = Documents()
    store.encoding = encoding
    store.open(types.TextDocumentItem(uri, language_id, 1, text))
    return store


def changed(store: Documents, *changes, version: int = 2, uri: str = URI) -> documents.Snapshot:
    return store.change(types.VersionedTextDocumentIdentifier(version, uri), changes)


def played(text: str, edits: tuple[Edit, ...]) -> str:
    """The text after the edits, each of which must match it."""
    for edit in edits:
        assert text[edit.start : edit.start + len(edit.removed)] == edit.removed
        text = text[: edit.start] + edit.inserted + text[edit.start + len(edit.removed) :]
    return text


POSITIONS = st.tuples(st.integers(0, 8), st.integers(0, 8))
CHANGES = st.tuples(st.none() | st.tuples(POSITIONS, POSITIONS), TEXTS)


@given(TEXTS, st.lists(st.lists(CHANGES, max_size=4), max_size=6), st.sampled_from(ENCODINGS))
@settings(max_examples=300)
def test_any_messages_give_the_same_text_as_plain_strings(text, messages, encoding):
    store = opened(text, encoding)
    for number, message in enumerate(messages):
        before, changes = text, []
        for ends, new in message:
            if ends is None:
                changes.append(whole(new))
                text = new
                continue
            changes.append(partial(span(*ends[0], *ends[1]), new))
            start, end = sorted(model_offset(text, *position, encoding) for position in ends)
            text = text[:start] + new + text[end:]
        snapshot = changed(store, *changes, version=number + 2)
        assert snapshot.text == text == played(before, snapshot.edits)
        assert len(snapshot.edits) == len(message)
        assert [line.rstrip("\r\n") for line in snapshot.lines] == [text[a:b] for a, b in model_lines(text)]
        assert "".join(snapshot.lines) == text and snapshot.length == len(text)


@given(TEXTS, st.sampled_from(ENCODINGS))
def test_offsets_and_positions(text, encoding):
    snapshot = opened(text, encoding).get(URI)
    for line in range(len(snapshot.lines) + 2):
        for column in range(12):
            offset = snapshot.offset(types.Position(line, column))
            assert offset == model_offset(text, line, column, encoding)
    for offset in range(len(text) + 1):
        position = snapshot.position(offset)
        inside_an_end = text[offset - 1 : offset + 1] == "\r\n" if offset else False
        assert snapshot.offset(position) == offset - inside_an_end
    assert snapshot.position(-3) == types.Position(0, 0)
    assert snapshot.position(len(text) + 3) == snapshot.position(len(text))
    assert snapshot.range(0, len(text)) == types.Range(types.Position(0, 0), snapshot.position(len(text)))


def test_only_three_line_ends_end_a_line():
    text = "a\nb\r\nc\rd\x0be\x0cf\x1cg\x85h\u2028i\u2029j"
    assert opened(text).get(URI).lines == ("a\n", "b\r\n", "c\r", "d\x0be\x0cf\x1cg\x85h\u2028i\u2029j")


@pytest.mark.parametrize(
    ("text", "where", "new", "lines"),
    [
        ("a\rb\nc", span(1, 0, 1, 1), "", ("a\r\n", "c")),
        ("a\rb", span(1, 0, 1, 0), "\n", ("a\r\n", "b")),
        ("a\nb", span(0, 1, 0, 1), "\r", ("a\r\n", "b")),
        ("a\r\nb", span(0, 1, 0, 1), "\r", ("a\r", "\r\n", "b")),
        ("a\r\nb", span(0, 1, 1, 0), "\r", ("a\r", "b")),
        ("a\r\nb", span(0, 9, 0, 9), "x", ("ax\r\n", "b")),
        ("a\r", span(1, 0, 1, 0), "\n", ("a\r\n", "")),
        ("a\r\r\r", span(2, 0, 3, 0), "\n\n", ("a\r", "\r\n", "\n", "")),
        ("", span(0, 0, 5, 5), "\n", ("\n", "")),
        ("a\nb\n", span(0, 0, 2, 0), "", ("",)),
    ],
)
def test_edits_that_join_or_split_line_ends(text, where, new, lines):
    snapshot = changed(opened(text), partial(where, new))
    assert snapshot.lines == lines
    assert played(text, snapshot.edits) == "".join(lines)


def test_a_reversed_range_is_turned_around():
    assert changed(opened("one two"), partial(span(0, 7, 0, 4), "2")).text == "one 2"


def test_columns_count_in_the_negotiated_encoding():
    for encoding, column in (("utf-8", 5), ("utf-16", 3), ("utf-32", 2)):
        snapshot = changed(opened("x😀z", encoding), partial(span(0, column, 0, column), "|"))
        assert (snapshot.text, snapshot.edits) == ("x😀|z", (Edit(2, "", "|"),))


def test_a_whole_text_is_reduced_to_its_difference():
    """Some editors send the whole text with every key."""
    text = "def f():\r\n    return 1\r\n\r\nf()\r\n"
    snapshot = changed(opened(text), whole(text.replace("return 1", "return 12")))
    assert snapshot.edits == (Edit(22, "", "2"),)
    assert changed(opened(text), whole(text)).edits == (Edit(len(text), "", ""),)
    assert changed(opened("a"), whole("")).edits == (Edit(0, "a", ""),)


def test_a_snapshot_never_changes():
    store = opened("a\nb\n")
    before = store.get(URI)
    after = changed(store, partial(span(0, 0, 1, 1), "c"))
    assert (before.text, before.version, before.edits) == ("a\nb\n", 1, ())
    assert (after.text, after.version) == ("c\n", 2)
    assert store.get(URI) is after
    with pytest.raises(AttributeError):
        after.version = 3


def test_an_older_version_is_logged_and_applied(caplog):
    store = opened("a")
    with caplog.at_level(logging.WARNING):
        changed(store, whole("b"), version=7)
        assert not caplog.records
        snapshot = changed(store, whole("c"), version=3)
    assert (snapshot.text, snapshot.version) == ("c", 3)
    assert "3" in caplog.text and "7" in caplog.text


def test_a_message_without_changes_only_sets_the_version():
    snapshot = changed(opened("a"))
    assert (snapshot.text, snapshot.version, snapshot.edits) == ("a", 2, ())


def test_a_document_that_is_not_open():
    store = opened("a")
    with pytest.raises(KeyError, match="is not open"):
        changed(store, whole("b"), uri="file:///other.py")
    store.close(URI)
    store.close(URI)
    assert store.get(URI) is None
    with pytest.raises(DocumentError) as caught:
        changed(store, whole("b"))
    assert str(caught.value) == f"The document {URI} was changed but is not open."


def test_the_most_recently_used_document_comes_first():
    store = Documents()
    for name in "abc":
        store.open(types.TextDocumentItem(name, "python", 1, name))
    changed(store, whole("b2"), uri="b")
    assert [snapshot.text for snapshot in store.recent()] == ["b2", "c", "a"]
    store.open(types.TextDocumentItem("a", "python", 1, "again"))
    store.close("c")
    assert [snapshot.text for snapshot in store.recent()] == ["again", "b2"]


@pytest.mark.parametrize(
    ("uri", "language_id", "path", "language"),
    [
        ("file:///work/a%20b.py", "python", "/work/a b.py", "python"),
        ("file:///work/a.tsx", "typescriptreact", "/work/a.tsx", "tsx"),
        ("file:///work/a.jsx", "javascriptreact", "/work/a.jsx", "javascript"),
        ("file:///work/a.h", "cpp", "/work/a.h", "cpp"),
        ("file:///work/main.rs", "", "/work/main.rs", "rust"),
        ("file:///work/notes.md", "markdown", "/work/notes.md", None),
        ("untitled:Untitled-1", "go", None, "go"),
        ("vscode-remote://ssh/home/x.java", "plaintext", None, "java"),
    ],
)
def test_path_and_language(uri, language_id, path, language):
    snapshot = opened("x", uri=uri, language_id=language_id).get(uri)
    assert (snapshot.path, snapshot.language, snapshot.language_id) == (path, language, language_id)


def test_the_first_line_identifies_the_language():
    assert opened("#!/usr/bin/env python3\n", uri="untitled:x", language_id="").get("untitled:x").language == "python"


class Work:
    """Counts the characters that a change splits into lines, and the lines whose length it reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.characters = self.lengths = 0
        split = documents._split
        monkeypatch.setattr(
            documents, "_split", lambda text, to_the_end: self._characters(text, split(text, to_the_end))
        )
        monkeypatch.setattr(documents, "len", self._length, raising=False)

    def _characters(self, text, lines):
        self.characters += len(text)
        return lines

    def _length(self, value):
        self.lengths += 1
        return len(value)


LONG = "".join(f"    value_{number} = compute({number})\n" for number in range(20_000))


def test_a_key_in_twenty_thousand_lines_only_costs_its_line(monkeypatch):
    store = opened(LONG)
    before = store.get(URI)
    work = Work(monkeypatch)
    for version, line in enumerate((0, 10_000, 19_999), 2):
        work.characters = work.lengths = 0
        after = changed(store, partial(span(line, 4, line, 4), "x"), version=version)
        assert work.characters <= 50
        assert work.lengths <= 20_050
        assert "text" not in vars(after) and "_starts" not in vars(after)
        different = [n for n, pair in enumerate(zip(before.lines, after.lines, strict=True)) if pair[0] is not pair[1]]
        assert different == [line]
        before = after


@pytest.mark.parametrize("order", ["downwards", "upwards"])
def test_a_thousand_cursors_cost_one_pass_over_the_lines(monkeypatch, order):
    lines = range(0, 20_000, 20) if order == "downwards" else range(19_980, -1, -20)
    store = opened(LONG)
    work = Work(monkeypatch)
    after = changed(store, *(partial(span(line, 4, line, 9), "\r") for line in lines))
    assert work.lengths <= 2 * 20_000 + 20 * 1000
    assert work.characters <= 50 * 1000
    assert after.text == played(LONG, after.edits)


def test_positions_in_twenty_thousand_lines_cost_one_pass(monkeypatch):
    snapshot = opened(LONG).get(URI)
    work = Work(monkeypatch)
    for line in range(0, 20_000, 100):
        assert snapshot.position(snapshot.offset(types.Position(line, 7))) == types.Position(line, 7)
    assert work.lengths <= 20_000 + 200 * 10


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_three_thousand_random_edits_of_one_document(encoding):
    """Unlike in the short documents of other tests, most edits have many lines before and after them."""
    dice = random.Random(encoding)
    pieces = ["\r\n", "\n", "\r", "x", "word ", "😀", "e\u0301", "\f", "\u2028", "\t", ""]
    text = "".join(dice.choices(pieces, k=600))
    store = opened(text, encoding)
    for version in range(2, 1002):
        changes, before = [], text
        for _ in range(3):
            lines = model_lines(text)
            start = dice.randrange(len(lines) + 1)
            ends = [(start, dice.randrange(14)), (start + dice.choice((0, 0, 0, 1, 3)), dice.randrange(14))]
            new = "".join(dice.choices(pieces, k=dice.randrange(6)))
            changes.append(partial(span(*ends[0], *ends[1]), new))
            first, last = sorted(model_offset(text, *position, encoding) for position in ends)
            text = text[:first] + new + text[last:]
        snapshot = changed(store, *changes, version=version)
        assert snapshot.text == text == played(before, snapshot.edits)
        assert len(snapshot.lines) == len(model_lines(text))

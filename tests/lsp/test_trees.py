"""Trees that follow their documents: equal to a fresh parse, for the newest version only."""

import asyncio
import random
import re
import threading
from collections.abc import Iterator

import pytest
import tree_sitter
from hypothesis import given, settings
from hypothesis import strategies as st
from lsprotocol import types

from infill.code import syntax
from infill.code.syntax import SyntaxTree, parse
from lsp import trees as trees_module
from lsp.documents import Documents, Snapshot
from lsp.trees import MANY, Trees
from tests.waiting import PATIENCE_S

URI = "file:///work/thing.py"
BLOCK = "class Ünit:\n    def f(self, a):\n        return [a, 'h😀llo', {1: 2}]  # e\u0301\r\n\n"


class Editor:
    """A document and its trees on an event loop, as in the server."""

    def __init__(self, text: str, language_id: str = "python", uri: str = URI, encoding: str = "utf-16") -> None:
        self.documents, self.trees, self.loop = Documents(encoding), Trees(), asyncio.new_event_loop()
        self.open(text, language_id, uri)

    def open(self, text: str, language_id: str = "python", uri: str = URI) -> None:
        self.snapshot = self.documents.open(types.TextDocumentItem(uri, language_id, 1, text))
        self.on_loop(self.trees.opened, self.snapshot)

    def on_loop(self, call, *arguments) -> None:
        async def called() -> None:
            call(*arguments)

        self.loop.run_until_complete(called())

    def apply(self, *edits: tuple[int, int, str], version: int | None = None) -> tuple[Snapshot, Snapshot]:
        """Applies edits of one message in order, without notifying the trees."""
        before, scratch, changes = self.snapshot, Documents(self.documents.encoding), []
        now = scratch.open(types.TextDocumentItem("x", "", 1, before.text))
        for start, end, new in edits:
            changes.append(types.TextDocumentContentChangePartial(now.range(start, end), new))
            now = scratch.change(types.VersionedTextDocumentIdentifier(now.version + 1, "x"), changes[-1:])
        number = before.version + 1 if version is None else version
        self.snapshot = self.documents.change(types.VersionedTextDocumentIdentifier(number, before.uri), changes)
        return before, self.snapshot

    def change(self, *edits: tuple[int, int, str], version: int | None = None) -> Snapshot:
        before, after = self.apply(*edits, version=version)
        self.on_loop(self.trees.changed, before, after)
        return after

    def put_back(self, before: Snapshot) -> None:
        """Restores the text of an earlier version as a whole-document change."""
        now, version = self.snapshot, types.VersionedTextDocumentIdentifier(self.snapshot.version + 1, before.uri)
        self.snapshot = self.documents.change(version, [types.TextDocumentContentChangeWholeDocument(before.text)])
        self.on_loop(self.trees.changed, now, self.snapshot)

    def tree(self, snapshot: Snapshot | None = None, timeout_s: float = PATIENCE_S):
        return self.loop.run_until_complete(self.trees.tree(snapshot or self.snapshot, timeout_s))

    def hold(self) -> threading.Event:
        """Keeps the thread busy until the event is set."""
        begun, event = threading.Event(), threading.Event()
        self.trees._thread.submit(lambda: (begun.set(), event.wait(PATIENCE_S)))
        begun.wait(PATIENCE_S)
        return event

    def end(self) -> None:
        self.trees.close()
        self.trees._thread.shutdown()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


@pytest.fixture
def edit() -> Iterator[Editor]:
    editor = Editor(BLOCK * 3)
    yield editor
    editor.end()


def nodes(root: tree_sitter.Node) -> list[tuple]:
    """Every node with its kind and position, in text order."""
    found, pending = [], [root]
    while pending:
        node = pending.pop()
        found.append((node.type, node.is_missing, node.start_byte, node.end_byte, node.start_point, node.end_point))
        pending.extend(reversed(node.children))
    return found


def same_as_fresh(tree, snapshot: Snapshot) -> bool:
    fresh = parse(snapshot.text, snapshot.language)
    return tree.text == snapshot.text and nodes(tree.root) == nodes(fresh.root)


def test_an_opened_document_has_its_tree(edit):
    assert same_as_fresh(edit.tree(), edit.snapshot)
    assert not edit.tree().root.has_error


def test_edits_of_one_message_are_followed_in_order(edit):
    edit.tree()
    at = edit.snapshot.text.index("[a")
    edit.change((at, at, "('😀', b\n)\r\n"), (at + 1, at + 4, "é"), (0, 0, "# 漢\n"), (at + 4, at + 5, ""))
    assert same_as_fresh(edit.tree(), edit.snapshot)


EDITS = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 9), st.sampled_from(["", "x", "é", "😀", "\n", "\r\n", "(", "'"]))
)


@given(st.lists(EDITS, max_size=4), st.sampled_from(["utf-8", "utf-16", "utf-32"]), st.booleans())
@settings(max_examples=60)
def test_any_edits_are_followed(messages, encoding, each):
    """Error recovery may differ after an edit, so trees are compared only for texts without errors."""
    edit = Editor(BLOCK, encoding=encoding)
    try:
        for message in messages:
            edit.change(*[(start, start + length, new) for start, length, new in message])
            if each:
                assert edit.tree().text == edit.snapshot.text
        tree, snapshot = edit.tree(), edit.snapshot
        assert tree.text == snapshot.text and tree.root.end_byte <= len(snapshot.text.encode())
        if not parse(snapshot.text, "python").root.has_error:
            assert same_as_fresh(tree, snapshot)
    finally:
        edit.end()


def test_only_changes_are_parsed_again(edit, monkeypatch):
    edit.tree()
    monkeypatch.setattr(trees_module, "parse", lambda *_: pytest.fail("parsed the whole"))
    edit.change((0, 0, "x = 1\n"))
    edit.change(*[(0, 0, "y\n")] * MANY)
    assert same_as_fresh(edit.tree(), edit.snapshot)


def test_many_edits_cause_a_full_parse(edit, monkeypatch):
    edit.tree()
    whole = []
    monkeypatch.setattr(trees_module, "parse", lambda *given: whole.append(given) or parse(*given))
    edit.change(*[(0, 0, "y\n")] * (MANY + 1))
    assert same_as_fresh(edit.tree(), edit.snapshot)
    assert len(whole) == 1


def test_there_is_no_tree_for_another_version(edit):
    first = edit.snapshot
    edit.tree()
    second = edit.change((0, 0, "x = 1\n"), version=first.version)
    assert edit.tree(first) is None
    assert edit.tree(second).text == second.text


def test_a_late_tree_is_none_and_comes_later(edit):
    event = edit.hold()
    edit.change((0, 0, "x = 1\n"))
    assert edit.tree(timeout_s=0.01) is None
    event.set()
    assert same_as_fresh(edit.tree(), edit.snapshot)


def test_a_busy_thread_skips_to_the_newest_version(edit, monkeypatch):
    edit.tree()
    parsed, work = [], trees_module._parsed
    monkeypatch.setattr(trees_module, "_parsed", lambda *given: parsed.append(given[-1]) or work(*given))
    event = edit.hold()
    for number in range(40):
        edit.change((number, number, "#"))
    event.set()
    assert same_as_fresh(edit.tree(), edit.snapshot)
    assert parsed[-1] is edit.snapshot
    assert len(parsed) <= 2


def test_a_superseded_version_has_a_tree_only_if_its_parse_had_begun(edit):
    async def ask():
        asking = []
        for _ in range(3):
            before, after = edit.apply((0, 0, "#"))
            edit.trees.changed(before, after)
            asking.append(asyncio.ensure_future(edit.trees.tree(after, PATIENCE_S)))
            await asyncio.sleep(0)
            texts.append(after.text)
        event.set()
        return await asyncio.gather(*asking)

    edit.tree()
    texts, event = [], edit.hold()
    begun, skipped, newest = edit.loop.run_until_complete(ask())
    assert begun.text == texts[0]
    assert skipped is None
    assert newest.text == texts[2]


@pytest.mark.parametrize("ended", ["closed", "everything closed", "opened again"])
def test_waiters_of_a_closed_document_get_none_at_once(edit, ended):
    async def ask():
        asking = asyncio.ensure_future(edit.trees.tree(edit.snapshot, 10 * PATIENCE_S))
        await asyncio.sleep(0)
        if ended == "closed":
            edit.trees.closed(URI)
        elif ended == "everything closed":
            edit.trees.close()
        else:
            edit.trees.opened(edit.documents.open(types.TextDocumentItem(URI, "python", 1, "a")))
        found = await asyncio.wait_for(asking, PATIENCE_S / 2)  # while the thread is busy
        event.set()
        return found

    edit.tree()
    event = edit.hold()
    edit.change((0, 0, "#"))
    assert edit.loop.run_until_complete(ask()) is None
    assert edit.tree() is None


def test_a_cancelled_wait_does_not_stop_the_parser(edit):
    async def give_up():
        asking = asyncio.ensure_future(edit.trees.tree(edit.snapshot, PATIENCE_S))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    edit.tree()
    event = edit.hold()
    edit.change((0, 0, "#"))
    edit.loop.run_until_complete(give_up())
    event.set()
    assert same_as_fresh(edit.tree(), edit.snapshot)


def test_changes_of_an_unknown_snapshot_cause_a_full_parse(edit):
    edit.tree()
    edit.apply((0, 0, "missed = 1\n"))
    edit.change((0, 1, "b"))
    assert same_as_fresh(edit.tree(), edit.snapshot)
    edit.trees.closed(URI)
    edit.change((0, 1, "c"))
    assert same_as_fresh(edit.tree(), edit.snapshot)


def test_a_reopened_document_has_its_new_tree(edit):
    edit.change((0, 0, "#"))
    edit.open("a = 1\n")
    assert same_as_fresh(edit.tree(), edit.snapshot)


def test_without_a_grammar_there_is_no_tree_until_the_language_is_known():
    edit = Editor("", language_id="plaintext", uri="untitled:1")
    assert edit.tree() is None
    assert edit.tree(Snapshot("untitled:2", "python", 1, ("x",), "utf-16")) is None
    edit.change((0, 0, "#!/usr/bin/python\nx = 1\n"))
    assert same_as_fresh(edit.tree(), edit.snapshot)
    edit.change((11, 17, "node"))
    assert edit.tree().language.id == "javascript"
    edit.change((0, 2, "//"))
    assert edit.tree() is None
    edit.end()


def test_a_text_that_grows_too_long_has_no_tree_until_it_shrinks(edit, monkeypatch):
    edit.tree()
    for module in (trees_module, syntax):
        monkeypatch.setattr(module, "MAX_PARSE_CHARS", len(edit.snapshot.text), raising=False)
    edit.change((0, 0, "#"))
    assert edit.tree() is None
    edit.change((0, 1, ""))
    assert same_as_fresh(edit.tree(), edit.snapshot)


def test_a_parser_error_is_logged_and_followed_by_a_full_parse(edit, monkeypatch, caplog):
    edit.tree()
    with monkeypatch.context() as patch:
        patch.setattr("infill.code.syntax.SyntaxTree.edited", lambda *_: 1 / 0)
        edit.change((0, 0, "x\n"))
        assert edit.tree() is None
        assert "ZeroDivisionError" in caplog.text
    edit.change((0, 0, "y\n"))
    assert same_as_fresh(edit.tree(), edit.snapshot)


def test_ten_thousand_random_edits(monkeypatch):
    """Junk is inserted and removed anywhere and then undone, so that the text is regularly valid again."""
    dice = random.Random(20)
    junk = ["\n", "\r\n", "\r", "\t", "\f", "\u2028", "    ", "def ", *"x'(}:#😀é\u0301", '"""']
    followed, edited = [], SyntaxTree.edited
    monkeypatch.setattr(
        SyntaxTree, "edited", lambda tree, edits, stop: followed.append(len(edits)) or edited(tree, edits, stop)
    )
    edit = Editor(BLOCK * 8)
    first = edit.snapshot
    count = broken = 0
    while count < 10_000:
        earlier = []
        for _ in range(dice.choice((1, 5, 25))):
            message, length = [], len(edit.snapshot.text)
            for _ in range(dice.choice((1, 1, 1, 2, 4, 8, 16, 32))):
                start = dice.randrange(length + 1)
                end = min(length, start + dice.choice((0, 0, 0, 1, 2, 30)))
                message.append((start, end, "".join(dice.choices(junk, k=dice.randrange(4)))))
                length += len(message[-1][2]) - (end - start)
            earlier.append(edit.snapshot)
            after = edit.change(*message)
            count += len(message)
            if dice.random() < 0.5:
                tree = edit.tree()
                assert tree.text == after.text
                broken += tree.root.has_error
        for snapshot in reversed(earlier):
            edit.put_back(snapshot)
            count += 1
            if dice.random() < 0.2:
                edit.tree()
        at = dice.choice([match.start() for match in re.finditer("class ", edit.snapshot.text)])
        edit.change((at, at, dice.choice(["", "ü = '😀'\n", "# \u2028\r\n", "if x:\n\ty = (1,\n2)\n"])))
        tree = edit.tree()
        assert not tree.root.has_error
        assert same_as_fresh(tree, edit.snapshot)
        if len(edit.snapshot.text) > 4000:
            edit.put_back(first)
    assert broken > 100
    assert sum(followed) > 5000
    edit.end()

"""A client of the language server that types as a person does, and counts what it sees.

Pauses, typing mistakes and deletions are drawn at random; right suggestions are accepted. Must not know how the server
finds a suggestion.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcRequestCancelled
from pygls.lsp.client import LanguageClient

from bench.service.scenarios import Scenario
from infill.code.syntax import SyntaxTree, in_comment, parse

GAP_S, WORD_GAP_S, LINE_GAP_S = 0.13, 0.22, 0.7  # median pauses: within a word, at its edge, at a new line
SPREAD = 0.35  # standard deviation of the logarithm of a pause
MISTAKES = 0.03  # share of the letters before which wrong ones are typed and deleted
READING_S = 0.35  # from suggestion to acceptance
MIN_ACCEPTED = 4  # characters of a suggestion worth accepting
URI = "file:///scenario/"


@dataclass
class Tally:
    """Counts and times over all keystrokes.

    due: keys after which MIN_ACCEPTED characters or more of the line are still to be typed, nothing typed is wrong, and
    the cursor is not in a comment; due_shown: those with a suggestion before the next key. right: suggestions that the
    text goes on with.
    distinct: each suggestion when it appears, with the line before it, and whether it is right.
    answered_ms: to the response, with or without a suggestion; a key that follows first cancels the request.
    """

    keystrokes: int = 0
    with_suggestion: int = 0
    right: int = 0
    due: int = 0
    due_shown: int = 0
    to_suggestion_ms: list[float] = field(default_factory=list)
    answered_ms: list[float] = field(default_factory=list)
    by_origin_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    rules: Counter[str] = field(default_factory=Counter)
    echo_ms: list[float] = field(default_factory=list)
    accepted: int = 0
    accepted_characters: int = 0
    written: int = 0
    kept_on: int = 0
    flickered: int = 0
    distinct: list[tuple[str, str, bool]] = field(default_factory=list)
    quiet_offsets: int = 0
    quiet: int = 0


class Typist:
    """A client that types. text: content of the document. cursor: offset in it."""

    def __init__(self, client: LanguageClient, tally: Tally, seed: int, pace: float) -> None:
        self.client, self.tally, self.random, self.pace = client, tally, random.Random(seed), pace
        self.uri, self.text, self.cursor, self.version = "", "", 0, 0
        self.pending: asyncio.Task[Any] | None = None
        self.shown: tuple[str, str] | None = None  # the suggestion and its id
        self.rest = ""  # what was still to be typed when it came
        self.noted_at = 0.0
        self.tree: SyntaxTree | None = None  # of the whole file, in which the typed text ends at `end`
        self.end = 0

    async def read_notes(self) -> None:
        """Reads the server's notes since the last call: origin and time of suggestions, rules that suppressed one."""
        notes = await self.client.workspace_execute_command_async(types.ExecuteCommandParams("gesso.whyNothing"))
        for note in reversed(notes or []):
            if note["at"] <= self.noted_at:
                continue
            self.noted_at = note["at"]
            if note["outcome"] == "shown":
                self.tally.by_origin_ms[note["origin"]].append(note["total_ms"])
            else:
                self.tally.rules[note["rule"] or note["outcome"]] += 1

    async def play(self, scenario: Scenario, index: int) -> None:
        """Types each region into the file without it; then requests suggestions at the quiet offsets."""
        for number, (start, end) in enumerate(scenario.typed):
            self.uri, self.version, self.shown = f"{URI}{index}/{number}/{Path(scenario.path).name}", 1, None
            self.text, self.cursor = scenario.text[:start] + scenario.text[end:], start
            item = types.TextDocumentItem(self.uri, scenario.language, 1, self.text)
            self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))
            self.tree, self.end = parse(scenario.text, scenario.language), end
            await self._type(scenario.text[start:end])
            await self._leave()
        for number, offset in enumerate(scenario.quiet):
            await self._stay_quiet(scenario, f"{URI}{index}/quiet/{number}", offset)

    async def _type(self, text: str) -> None:
        self.tally.written += len(text)
        done = 0
        while done < len(text):
            if accepted := await self._accept(text[done:]):
                done += accepted
                continue
            if text[done].isalpha() and self.random.random() < MISTAKES:
                letters = "qx"[: self.random.randint(1, 2)]
                for letter in letters:
                    await self._key(letter, 0, "a", "")
                for _ in letters:
                    await self._key("", 1, "a", "")
            piece = text[done]
            if piece == "\n":  # the editor inserts the indentation
                rest = text[done + 1 :]
                piece += rest[: len(rest) - len(rest.lstrip(" \t"))]
            await self._key(piece, 0, text[done - 1] if done else " ", text[done + len(piece) :])
            done += len(piece)

    async def _key(self, inserted: str, deleted: int, before: str, rest: str) -> None:
        """One key: the edit, a request for a suggestion (the previous one is cancelled), then the pause.

        rest: the text to be typed after it; empty while something typed is wrong.
        """
        started = time.perf_counter()
        self._edit(inserted, deleted)
        self.tally.keystrokes += 1
        if self.pending is not None and not self.pending.done():
            self.pending.cancel()
        if self.shown is not None:
            text, identifier = self.shown
            agrees = not deleted and text.startswith(inserted) and len(text) > len(inserted)
            self.shown = (text[len(inserted) :], identifier) if agrees else None
        self.pending = asyncio.ensure_future(self._request(started, self.version, rest))
        if self.tally.keystrokes % 50 == 0:
            await self.read_notes()
        echo = asyncio.ensure_future(self._echo())
        await asyncio.sleep(self._gap(inserted, before))
        await echo

    def _gap(self, inserted: str, before: str) -> float:
        edge = not (inserted.isalnum() and before.isalnum())
        median = LINE_GAP_S if inserted.startswith("\n") else WORD_GAP_S if edge else GAP_S
        return float(median * self.pace * self.random.lognormvariate(0, SPREAD))

    async def _request(self, started: float, version: int, rest: str) -> None:
        expected, due = self.shown, self._is_due(rest)
        self.tally.due += due
        try:
            result = await self.client.text_document_inline_completion_async(self._params())
        except JsonRpcRequestCancelled:  # by a newer request
            return
        if version != self.version:
            return
        taken_ms = 1000 * (time.perf_counter() - started)
        self.tally.answered_ms.append(taken_ms)
        items = result.items if isinstance(result, types.InlineCompletionList) else result or []
        if not items:
            self.shown = None
            return
        text = str(items[0].insert_text)
        self.tally.with_suggestion += 1
        self.tally.to_suggestion_ms.append(taken_ms)
        self.tally.due_shown += due
        self.tally.right += rest.startswith(text)
        if expected is not None:
            self.tally.kept_on += 1
            self.tally.flickered += not text.startswith(expected[0])
        self._show(items[0], rest)

    def extended(self, uri: str) -> None:
        """The server has more of the suggestion on the screen."""
        if uri == self.uri and self.shown is not None and (self.pending is None or self.pending.done()):
            self.pending = asyncio.ensure_future(self._extend(self.version, self.rest))

    async def _extend(self, version: int, rest: str) -> None:
        try:
            result = await self.client.text_document_inline_completion_async(self._params())
        except JsonRpcRequestCancelled:
            return
        items = result.items if isinstance(result, types.InlineCompletionList) else result or []
        if version == self.version and items:
            self._show(items[0], rest)

    def _show(self, item: types.InlineCompletionItem, rest: str) -> None:
        text = str(item.insert_text)
        if self.shown is None or self.shown[0] != text:
            line = self.text[: self.cursor].rpartition("\n")[2]
            self.tally.distinct.append((line, text, rest.startswith(text)))
        arguments = item.command.arguments if item.command else None
        self.shown, self.rest = (text, str(arguments[0]) if arguments else ""), rest

    def _is_due(self, rest: str) -> bool:
        enough = len(rest.partition("\n")[0].strip()) >= MIN_ACCEPTED
        return enough and not (self.tree is not None and in_comment(self.tree, self.end - len(rest)))

    async def _echo(self) -> None:
        """Times a trivial request, which shows whether suggestions block the server."""
        started = time.perf_counter()
        await self.client.workspace_execute_command_async(types.ExecuteCommandParams("gesso.status"))
        self.tally.echo_ms.append(1000 * (time.perf_counter() - started))

    async def _accept(self, rest: str) -> int:
        """Accepts the suggestion after a pause if `rest` begins with it; returns the number of accepted characters."""
        if self.shown is None or not rest.startswith(self.shown[0]) or len(self.shown[0].strip()) < MIN_ACCEPTED:
            return 0
        text, identifier = self.shown
        await asyncio.sleep(READING_S * self.pace)
        self._edit(text, 0)
        self.shown = None
        params = types.ExecuteCommandParams("gesso.accepted", arguments=[identifier])
        await self.client.workspace_execute_command_async(params)
        self.tally.accepted += 1
        self.tally.accepted_characters += len(text)
        self.tally.keystrokes += 1
        self.pending = asyncio.ensure_future(self._request(time.perf_counter(), self.version, rest[len(text) :]))
        await asyncio.sleep(GAP_S * self.pace)
        return len(text)

    def _edit(self, inserted: str, deleted: int) -> None:
        end = _position(self.text, self.cursor)
        start = _position(self.text, self.cursor - deleted)
        self.text = self.text[: self.cursor - deleted] + inserted + self.text[self.cursor :]
        self.cursor += len(inserted) - deleted
        self.version += 1
        change = types.TextDocumentContentChangePartial(range=types.Range(start, end), text=inserted)
        document = types.VersionedTextDocumentIdentifier(uri=self.uri, version=self.version)
        self.client.text_document_did_change(types.DidChangeTextDocumentParams(document, [change]))

    def _params(self) -> types.InlineCompletionParams:
        return types.InlineCompletionParams(
            types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic),
            types.TextDocumentIdentifier(self.uri),
            _position(self.text, self.cursor),
        )

    async def _leave(self) -> None:
        if self.pending is not None:
            self.pending.cancel()
        await self.read_notes()
        identifier = types.TextDocumentIdentifier(self.uri)
        self.client.text_document_did_close(types.DidCloseTextDocumentParams(identifier))

    async def _stay_quiet(self, scenario: Scenario, uri: str, offset: int) -> None:
        """Requests a suggestion at an offset at which none should be shown."""
        self.uri, self.version, self.text, self.cursor = uri, 1, scenario.text, offset
        item = types.TextDocumentItem(uri, scenario.language, 1, scenario.text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))
        result = await self.client.text_document_inline_completion_async(self._params())
        items = result.items if isinstance(result, types.InlineCompletionList) else result or []
        self.tally.quiet_offsets += 1
        self.tally.quiet += not items
        await self._leave()


def _position(text: str, offset: int) -> types.Position:
    line_start = text.rfind("\n", 0, offset) + 1
    return types.Position(text.count("\n", 0, offset), len(text[line_start:offset].encode("utf-16-le")) // 2)

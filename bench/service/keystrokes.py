"""From keystroke to suggestion: types real code as a person does, through the language server over stdio.

`python -m bench.service.keystrokes` plays the scenarios in bench/scenarios: files with regions that are typed again,
with pauses, typing mistakes and deletions. Right suggestions are accepted. `--cut FILE` makes a new scenario;
`--baseline FILE` compares with the figures of an earlier run. Must not know how the server finds a suggestion.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from lsprotocol import types
from pygls.lsp.client import LanguageClient
from rich.console import Console
from rich.table import Table

from bench.report import conditions, json_text, percentile
from engine.errors import InputError
from infill.service.location import location_at, lock_holder
from infill.service.start import stop_service
from train.program import reports_errors

SCENARIOS = Path(__file__).parents[1] / "scenarios"
RESULT = Path(__file__).parents[1] / "results" / "keystrokes.json"
GAP_S, WORD_GAP_S, LINE_GAP_S = 0.13, 0.22, 0.7  # median pauses: within a word, at its edge, at a new line
SPREAD = 0.35  # standard deviation of the logarithm of a pause
MISTAKES = 0.03  # share of the letters before which wrong ones are typed and deleted
READING_S = 0.35  # from suggestion to acceptance
MIN_ACCEPTED = 4  # characters of a suggestion worth accepting
URI = "file:///scenario/"


@dataclass(frozen=True)
class Scenario:
    """A file. typed: regions [start, end) to type again. quiet: offsets at which no suggestion should be shown."""

    path: str
    language: str
    text: str
    typed: tuple[tuple[int, int], ...]
    quiet: tuple[int, ...]


@dataclass
class Tally:
    """Counts and times over all keystrokes."""

    keystrokes: int = 0
    with_suggestion: int = 0
    to_suggestion_ms: list[float] = field(default_factory=list)
    by_origin_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    rules: Counter[str] = field(default_factory=Counter)
    echo_ms: list[float] = field(default_factory=list)
    accepted: int = 0
    accepted_characters: int = 0
    written: int = 0
    kept_on: int = 0
    flickered: int = 0
    quiet_offsets: int = 0
    quiet: int = 0


class Typist:
    """A client that types. text: content of the document. cursor: offset in it."""

    def __init__(self, client: LanguageClient, tally: Tally, seed: int, pace: float) -> None:
        self.client, self.tally, self.random, self.pace = client, tally, random.Random(seed), pace
        self.uri, self.text, self.cursor, self.version = "", "", 0, 0
        self.pending: asyncio.Task[Any] | None = None
        self.shown: tuple[str, str] | None = None  # the suggestion and its id
        self.noted_at = 0.0

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
                    await self._key(letter, 0, "a")
                for _ in letters:
                    await self._key("", 1, "a")
            piece = text[done]
            if piece == "\n":  # the editor inserts the indentation
                rest = text[done + 1 :]
                piece += rest[: len(rest) - len(rest.lstrip(" \t"))]
            await self._key(piece, 0, text[done - 1] if done else " ")
            done += len(piece)

    async def _key(self, inserted: str, deleted: int, before: str) -> None:
        """One key: the edit, a request for a suggestion (the previous one is cancelled), then the pause."""
        started = time.perf_counter()
        self._edit(inserted, deleted)
        self.tally.keystrokes += 1
        if self.pending is not None and not self.pending.done():
            self.pending.cancel()
        if self.shown is not None:
            text, identifier = self.shown
            agrees = not deleted and text.startswith(inserted) and len(text) > len(inserted)
            self.shown = (text[len(inserted) :], identifier) if agrees else None
        self.pending = asyncio.ensure_future(self._request(started, self.version))
        if self.tally.keystrokes % 50 == 0:
            await self.read_notes()
        echo = asyncio.ensure_future(self._echo())
        await asyncio.sleep(self._gap(inserted, before))
        await echo

    def _gap(self, inserted: str, before: str) -> float:
        edge = not (inserted.isalnum() and before.isalnum())
        median = LINE_GAP_S if inserted.startswith("\n") else WORD_GAP_S if edge else GAP_S
        return float(median * self.pace * self.random.lognormvariate(0, SPREAD))

    async def _request(self, started: float, version: int) -> None:
        expected = self.shown
        result = await self.client.text_document_inline_completion_async(self._params())
        if version != self.version:
            return
        items = result.items if isinstance(result, types.InlineCompletionList) else result or []
        if not items:
            self.shown = None
            return
        self.tally.with_suggestion += 1
        self.tally.to_suggestion_ms.append(1000 * (time.perf_counter() - started))
        text = str(items[0].insert_text)
        if expected is not None:
            self.tally.kept_on += 1
            self.tally.flickered += expected[0] != text
        arguments = items[0].command.arguments if items[0].command else None
        self.shown = text, str(arguments[0]) if arguments else ""

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
        self.pending = asyncio.ensure_future(self._request(time.perf_counter(), self.version))
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


def read_scenarios(folder: Path = SCENARIOS) -> list[Scenario]:
    """All scenarios of a folder, by file name."""
    found = []
    for file in sorted(folder.glob("*.json")):
        value = json.loads(file.read_text())
        typed = tuple((int(start), int(end)) for start, end in value["typed"])
        found.append(Scenario(value["path"], value["language"], value["text"], typed, tuple(value["quiet"])))
    if not found:
        raise InputError(f"There is no scenario in {folder}; create one with --cut FILE.")
    return found


def cut(file: Path, seed: int = 0, regions: int = 2, lines: int = 9, quiet: int = 12) -> Scenario:
    """A scenario of a file: regions of whole indented lines; quiet offsets inside words and after closing brackets."""
    text = file.read_text()
    rng = random.Random(f"{seed} {file.name}")
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    middle = [n for n in range(len(starts) // 4, len(starts) - lines - 2) if text[starts[n] : starts[n] + 4] == "    "]
    typed: list[tuple[int, int]] = []
    for first in rng.sample(middle, len(middle)):
        start, end = starts[first], starts[first + lines] - 1
        start += len(text[start:end]) - len(text[start:end].lstrip(" "))
        if all(end < other[0] or start > other[1] for other in typed):
            typed.append((start, end))
        if len(typed) == regions:
            break
    inside = [n for n in range(1, len(text) - 1) if text[n - 1].isalpha() and text[n].isalpha()]
    ends = [n for n in range(1, len(text)) if text[n] == "\n" and text[n - 1] in ")]}" and text[n - 2] != "("]
    offsets = rng.sample(inside, quiet // 2) + rng.sample(ends, min(len(ends), quiet - quiet // 2))
    return Scenario(file.as_posix(), _language(file), text, tuple(sorted(typed)), tuple(sorted(offsets)))


def _language(file: Path) -> str:
    from infill.code.languages import detect

    language = detect(file.name)
    if language is None:
        raise InputError(f"Gesso does not know the language of {file}; choose another file.")
    return language


async def measure(scenarios: list[Scenario], settings: dict[str, Any], seed: int, pace: float) -> dict[str, Any]:
    """Plays the scenarios one after another with one server and returns the figures."""
    logging.getLogger("pygls").setLevel(logging.CRITICAL)  # hides responses to cancelled requests
    client, tally = LanguageClient("keystrokes", "1"), Tally()
    ready = asyncio.Event()

    @client.feature("didChangeStatus")
    def status(params: Any) -> None:
        if params.state == "ready":
            ready.set()

    @client.feature(types.WINDOW_SHOW_MESSAGE)
    def message(params: types.ShowMessageParams) -> None:
        print(params.message, file=sys.stderr)

    await client.start_io(sys.executable, "-m", "lsp")
    document = types.TextDocumentClientCapabilities(inline_completion=types.InlineCompletionClientCapabilities())
    capabilities = types.ClientCapabilities(text_document=document)
    await client.initialize_async(
        types.InitializeParams(capabilities, process_id=None, initialization_options=settings)
    )
    client.initialized(types.InitializedParams())
    await asyncio.wait_for(ready.wait(), 120)
    processes = [_server_process(), psutil.Process(lock_holder(location_at()))]
    cpu, begun = _cpu_seconds(processes), time.perf_counter()
    typist = Typist(client, tally, seed, pace)
    for index, scenario in enumerate(scenarios):
        await typist.play(scenario, index)
    seconds = time.perf_counter() - begun
    used = _cpu_seconds(processes) - cpu
    memory = sum(process.memory_info().rss for process in processes) / 2**20
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()
    return figures(tally, seconds, used, memory)


def _server_process() -> psutil.Process:
    return next(one for one in psutil.Process().children() if "lsp" in one.cmdline())


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def figures(tally: Tally, seconds: float, cpu_s: float, memory_mib: float) -> dict[str, Any]:
    """The figures: milliseconds, shares from 0 to 1, MiB."""
    served = sum(len(times) for times in tally.by_origin_ms.values())
    saved = tally.accepted_characters - tally.accepted
    return {
        "keystrokes": tally.keystrokes,
        "characters": tally.written,
        "to_suggestion_ms": _percentiles(tally.to_suggestion_ms),
        "by_origin": {
            origin: {"share": len(times) / max(1, served), **_percentiles(times)}
            for origin, times in sorted(tally.by_origin_ms.items())
        },
        "with_suggestion": tally.with_suggestion / max(1, tally.keystrokes),
        "saved": saved / max(1, tally.written),
        "accepted": tally.accepted,
        "flicker": tally.flickered / max(1, tally.kept_on),
        "quiet_rate": tally.quiet / max(1, tally.quiet_offsets),
        "echo_ms": _percentiles(tally.echo_ms),
        "rules": dict(tally.rules.most_common()),
        "cpu_share": cpu_s / seconds,
        "memory_mib": memory_mib,
        "suggestions_seen": tally.with_suggestion,
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{share}": percentile(values, share / 100) if values else 0.0 for share in (50, 95, 99)}


def table_of(found: dict[str, Any], baseline: dict[str, Any] | None) -> Table:
    """The figures, next to those of a baseline."""
    table = Table("figure", "now", *(["baseline"] if baseline else []))

    def row(name: str, read: Any) -> None:
        table.add_row(name, read(found), *([read(baseline)] if baseline else []))

    def times(key: str) -> Any:
        return lambda one: " / ".join(f"{one[key][p]:.0f}" for p in ("p50", "p95", "p99"))

    def share(key: str) -> Any:
        return lambda one: f"{one[key]:.1%}"

    row("keystroke to suggestion, ms (p50 / p95 / p99)", times("to_suggestion_ms"))
    for origin in ("typed", "cache", "running", "remainder", "model"):
        row(f"  from {origin}: share, p50 / p95 ms", lambda one, origin=origin: _origin(one["by_origin"].get(origin)))
    row("keystrokes with a suggestion", share("with_suggestion"))
    row("keystrokes saved", share("saved"))
    row("flicker", share("flicker"))
    row("no suggestion where none should be shown", share("quiet_rate"))
    row("response to a trivial request, ms (p50 / p95 / p99)", times("echo_ms"))
    row("CPU, cores", lambda one: f"{one['cpu_share']:.2f}")
    row("memory of server and engine, MiB", lambda one: f"{one['memory_mib']:.0f}")
    return table


def _origin(one: dict[str, float] | None) -> str:
    return f"{one['share']:.1%}, {one['p50']:.0f} / {one['p95']:.0f}" if one else "–"


def main(
    cut_file: Annotated[list[Path] | None, typer.Option("--cut", help="Create a scenario from this file.")] = None,
    eagerness: Annotated[str, typer.Option(help="calm, balanced or eager.")] = "balanced",
    threads: Annotated[int, typer.Option(help="CPU threads of the engine.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed for pauses and mistakes.")] = 0,
    pace: Annotated[float, typer.Option(help="Factor of the pauses between keys.")] = 1.0,
    lint: Annotated[bool | None, typer.Option(help="Switch lint on or off; default: the server's.")] = None,
    out: Annotated[Path, typer.Option(help="File for the figures.")] = RESULT,
    baseline: Annotated[Path | None, typer.Option(help="Earlier figures to compare with.")] = None,
) -> None:
    """Type the scenarios with the language server and report what a user would see."""
    console = Console()
    for file in cut_file or ():
        SCENARIOS.mkdir(exist_ok=True)
        scenario = cut(file)
        (SCENARIOS / f"{file.stem}.json").write_text(json.dumps(asdict(scenario), indent=1) + "\n")
    if cut_file:
        return
    before = json.loads(baseline.read_text()) if baseline else None
    settings = {
        "eagerness": eagerness,
        "threads": threads,
        "statistics": False,
        **({} if lint is None else {"lint": lint}),
    }
    with tempfile.TemporaryDirectory(prefix="gesso-keys-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder  # a service of this measurement, so that all it uses is counted
        try:
            found = asyncio.run(measure(read_scenarios(), settings, seed, pace))
        finally:
            stop_service(location_at())
    console.print(table_of(found, before))
    out.write_text(json_text({"conditions": conditions(), "settings": settings, **found}))


if __name__ == "__main__":
    typer.run(reports_errors(main))

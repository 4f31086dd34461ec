"""From keystroke to suggestion: types real code as a person does, through the language server over stdio.

`python -m bench.service.keystrokes` plays the scenarios in bench/scenarios: files with regions that are typed again,
with pauses, typing mistakes and deletions. Right suggestions are accepted. `--corpus DIR` types regions of held-out
projects instead (a folder written by train.corpus); `--cut FILE` makes a new scenario; `--baseline FILE` compares with
the figures of an earlier run. Must not know how the server finds a suggestion.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from lsprotocol import types
from pygls.lsp.client import LanguageClient
from rich.console import Console
from rich.table import Table

from bench.report import conditions, json_text, percentile
from bench.service.scenarios import SCENARIOS, Scenario, cut_file, held_out_scenarios, read_scenarios
from bench.service.typist import Tally, Typist
from engine.errors import InputError
from infill.service.location import location_at, lock_holder
from infill.service.start import stop_service
from train.program import reports_errors

KNOWN = ("typed", "cache", "remainder")  # origins of suggestions that need no run of the model
RESULT = Path(__file__).parents[1] / "results" / "keystrokes.json"


async def measure(scenarios: list[Scenario], settings: dict[str, Any], seed: int, pace: float) -> dict[str, Any]:
    """Plays the scenarios one after another with one server and returns the figures."""
    logging.getLogger("pygls").setLevel(logging.CRITICAL)  # hides responses to cancelled requests
    client, tally = LanguageClient("keystrokes", "1"), Tally()
    settled, state = asyncio.Event(), dict[str, Any]()

    @client.feature("didChangeStatus")
    def status(params: Any) -> None:
        if params.state in ("ready", "failed"):
            state.update(kind=params.state, model=params.model, message=params.message)
            settled.set()

    @client.feature(types.WINDOW_SHOW_MESSAGE)
    def message(params: types.ShowMessageParams) -> None:
        print(params.message, file=sys.stderr)

    await client.start_io(sys.executable, "-m", "lsp")
    document = types.TextDocumentClientCapabilities(inline_completion=types.InlineCompletionClientCapabilities())
    capabilities = types.ClientCapabilities(text_document=document)
    options = {"gesso": settings, "extendsSuggestions": True}
    await client.initialize_async(types.InitializeParams(capabilities, process_id=None, initialization_options=options))
    client.initialized(types.InitializedParams())
    await asyncio.wait_for(settled.wait(), 120)
    if state["kind"] == "failed":
        raise InputError(state["message"])
    processes = [_server_process(), psutil.Process(lock_holder(location_at()))]
    cpu, begun = _cpu_seconds(processes), time.perf_counter()
    typist = Typist(client, tally, seed, pace)

    @client.feature("gesso/suggestionExtended")
    def extended(params: Any) -> None:
        typist.extended(params.uri)

    for index, scenario in enumerate(scenarios):
        await typist.play(scenario, index)
    seconds = time.perf_counter() - begun
    used = _cpu_seconds(processes) - cpu
    memory_mib = [process.memory_info().rss / 2**20 for process in processes]
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()
    return {"model": state["model"], **figures(tally, seconds, used, memory_mib)}


def _server_process() -> psutil.Process:
    return next(one for one in psutil.Process().children() if "lsp" in one.cmdline())


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def figures(tally: Tally, seconds: float, cpu_s: float, memory_mib: list[float]) -> dict[str, Any]:
    """The figures: milliseconds, shares from 0 to 1, MiB. known: shown without a run of the model. memory_mib: of the
    language server, and of the service."""
    served = sum(len(times) for times in tally.by_origin_ms.values())
    known = sum(len(times) for origin, times in tally.by_origin_ms.items() if origin in KNOWN)
    saved = tally.accepted_characters - tally.accepted
    return {
        "keystrokes": tally.keystrokes,
        "characters": tally.written,
        "to_suggestion_ms": _percentiles(tally.to_suggestion_ms),
        "answered_ms": _percentiles(tally.answered_ms),
        "answered": len(tally.answered_ms) / max(1, tally.keystrokes),
        "known": known / max(1, served),
        "by_origin": {
            origin: {"share": len(times) / max(1, served), **_percentiles(times)}
            for origin, times in sorted(tally.by_origin_ms.items())
        },
        "with_suggestion": tally.with_suggestion / max(1, tally.keystrokes),
        "shown_where_due": tally.due_shown / max(1, tally.due),
        "right": tally.right / max(1, tally.with_suggestion),
        "distinct_right": sum(right for _, _, right in tally.distinct) / max(1, len(tally.distinct)),
        "saved": saved / max(1, tally.written),
        "accepted": tally.accepted,
        "flicker": tally.flickered / max(1, tally.kept_on),
        "quiet_rate": tally.quiet / max(1, tally.quiet_offsets),
        "echo_ms": _percentiles(tally.echo_ms),
        "rules": dict(tally.rules.most_common()),
        "cpu_share": cpu_s / seconds,
        "memory_mib": sum(memory_mib),
        "service_memory_mib": memory_mib[1],
        "suggestions_seen": tally.with_suggestion,
        "suggestions": tally.distinct,
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{share}": percentile(values, share / 100) if values else 0.0 for share in (50, 95, 99)}


def table_of(found: dict[str, Any], baseline: dict[str, Any] | None) -> Table:
    """The figures, next to those of a baseline, and the aims for the coder on two cores."""
    title = f"Typing with {found['model']}: {found['keystrokes']} keys, {found['characters']} characters"
    table = Table("figure", "now", *(["baseline"] if baseline else []), "aim", title=title)

    def row(name: str, read: Any, aim: str = "") -> None:
        table.add_row(name, read(found), *([_read(read, baseline)] if baseline else []), aim)

    def times(key: str) -> Any:
        return lambda one: " / ".join(f"{one[key][p]:.0f}" for p in ("p50", "p95", "p99"))

    def share(key: str) -> Any:
        return lambda one: f"{one[key]:.1%}"

    row("key to suggestion, ms (p50 / p95 / p99)", times("to_suggestion_ms"), "100 / 900")
    for origin in ("typed", "cache", "running", "remainder", "model"):
        row(f"  from {origin}: share, p50 / p95 ms", lambda one, origin=origin: _origin(one["by_origin"].get(origin)))
    row("suggestions shown without a run of the model", share("known"))
    row("keys with a response before the next key", share("answered"))
    row("key to response, ms (p50 / p95 / p99)", times("answered_ms"))
    row("keys with a suggestion", share("with_suggestion"))
    row("the same, of keys with four or more characters to go", share("shown_where_due"), "25 %")
    row("suggestions that are wholly right, by key", share("right"))
    row("the same, by suggestion", share("distinct_right"))
    row("characters saved", share("saved"), "25 %")
    row("flicker", share("flicker"), "0 %")
    row("no suggestion where none should be shown", share("quiet_rate"), "100 %")
    row("response to a trivial request, ms (p50 / p95 / p99)", times("echo_ms"))
    row("CPU, cores", lambda one: f"{one['cpu_share']:.2f}")
    row("memory of language server and service, MiB", lambda one: f"{one['memory_mib']:.0f}")
    row("  of the service alone", lambda one: f"{one['service_memory_mib']:.0f}")
    return table


def _read(read: Any, baseline: dict[str, Any]) -> str:
    """A figure of a baseline, which an earlier version of this program may not have written."""
    try:
        return str(read(baseline))
    except KeyError:
        return "–"


def _origin(one: dict[str, float] | None) -> str:
    return f"{one['share']:.1%}, {one['p50']:.0f} / {one['p95']:.0f}" if one else "–"


def main(
    cuts: Annotated[list[Path] | None, typer.Option("--cut", help="Create a scenario from this file.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="Corpus of held-out projects to type regions of.")] = None,
    language: Annotated[str, typer.Option(help="Language of the regions of the corpus.")] = "python",
    count: Annotated[int, typer.Option(help="Number of regions of the corpus.")] = 8,
    model: Annotated[str | None, typer.Option(help="Name of the model; default: as `gesso config` says.")] = None,
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
    for file in cuts or ():
        SCENARIOS.mkdir(exist_ok=True)
        scenario = cut_file(file)
        (SCENARIOS / f"{file.stem}.json").write_text(json.dumps(asdict(scenario), indent=1) + "\n")
    if cuts:
        return
    scenarios = read_scenarios() if corpus is None else held_out_scenarios(corpus, language, count)
    before = json.loads(baseline.read_text()) if baseline else None
    settings = {
        "eagerness": eagerness,
        "threads": threads,
        "statistics": False,
        **({} if model is None else {"model": model}),
        **({} if lint is None else {"lint": lint}),
    }
    with tempfile.TemporaryDirectory(prefix="gesso-keys-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder  # a service of this measurement, so that all it uses is counted
        try:
            found = asyncio.run(measure(scenarios, settings, seed, pace))
        finally:
            stop_service(location_at())
    console.print(table_of(found, before))
    out.write_text(json_text({"conditions": conditions(), "settings": settings, **found}))


if __name__ == "__main__":
    typer.run(reports_errors(main))

"""`gesso stats`: prints the local statistics of suggestions in editors as tables and bars.

Must not know how events are recorded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from engine.errors import UsageError
from infill import statistics
from infill.cli import support as cli_support
from infill.cli.support import VisibleConsole, errors_to_exit_codes, say
from infill.printable import json_text, plain
from infill.statistics import KEPT_DAYS, Counts, EventRow, Summary

ORIGINS = {
    "typed": "typed as suggested",
    "cache": "cached",
    "remainder": "rest of a suggestion",
    "running": "run in progress",
    "model": "new model run",
}
BAR_COLUMNS = 20
MAX_DAY_ROWS = 14  # longer periods are shown by week
DAYS_PER_WEEK = 7


@dataclass(frozen=True)
class Bar:
    """A bar of `length` (0 to 1) times `BAR_COLUMNS` or the available columns; the share `filled` of it is solid."""

    length: float
    filled: float = 1.0

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(0, min(BAR_COLUMNS, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        solid, light = "█░" if options.encoding.startswith("utf") else "#-"
        columns = round(min(BAR_COLUMNS, options.max_width) * min(1.0, self.length))
        filled = round(columns * min(1.0, self.filled))
        yield Text(solid * filled + light * (columns - filled), style="green")


@errors_to_exit_codes
def stats(
    days: Annotated[
        int | None, typer.Option(min=1, max=KEPT_DAYS, metavar="N", help="Cover the last N days (default: 30).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    erase: Annotated[bool, typer.Option("--erase", help="Delete all statistics.")] = False,
) -> None:
    """Show statistics of your editors' suggestions: shown, accepted, kept, and latency.

    They cover the last 90 days, contain no code and never leave this machine. To turn them off, set gesso.statistics
    to false in your editor.
    """
    path = statistics.default_path()
    if erase:
        if as_json or days is not None:
            raise UsageError("--erase deletes all statistics and cannot be combined with other options; remove them.")
        erased = statistics.erase(path)
        say(f"Deleted the statistics in {path}." if erased else "There are no statistics to delete.")
        return
    period = days or 30
    since = statistics.days_back(period)
    rows = statistics.read(path, since)
    summary = statistics.summarize(rows)
    if as_json:
        cli_support.write_out(json_text(_as_json(summary, since), indent=2))
    elif not rows:
        say(f"No suggestions {_period(period)}; `gesso-lsp` records them while it runs in an editor.")
    else:
        _print_tables(VisibleConsole(highlight=False), summary, rows, since, period)


def _as_json(summary: Summary, since: date) -> dict[str, Any]:
    def groups(counts_by_name: dict[Any, Counts]) -> dict[str, Any]:
        return {str(name): _counts_as_json(counts) for name, counts in counts_by_name.items()}

    return {
        "since": since.isoformat(),
        **_counts_as_json(summary.total),
        "settled": summary.settled,
        "kept_share": summary.kept_share,
        "latency_ms": {origin: asdict(latency) for origin, latency in summary.latencies.items()},
        "languages": groups(summary.languages),
        "models": groups(summary.models),
        "days": groups(summary.days),
        "next_edits": _counts_as_json(summary.next_edits),
    }


def _counts_as_json(counts: Counts) -> dict[str, Any]:
    return {**asdict(counts), "accepted_share": counts.accepted_share}


def _print_tables(console: Console, summary: Summary, rows: list[EventRow], since: date, period: int) -> None:
    total = summary.total
    console.print(f"Suggestions {_period(period)}, since {since}", style="bold")
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(no_wrap=True)
    facts.add_column(justify="right", no_wrap=True)
    facts.add_column(justify="right", no_wrap=True)
    _row(facts, "shown", f"{total.shown:,}", "", "")
    _row(facts, "accepted", f"{total.accepted:,}", _percent(total.accepted_share), "of those shown")
    _row(facts, "partly", f"{total.partly:,}", "", "words or lines accepted from a suggestion")
    _row(facts, "rejected", f"{total.rejected:,}", "", "dismissed, or ignored after being seen")
    note = "of the accepted text was still there later" if summary.settled else "nothing measured yet"
    _row(facts, "kept", f"{summary.settled:,}", _percent(summary.kept_share), note)
    _row(facts, "saved", f"{total.characters:,}", "", "characters you did not have to type")
    if summary.next_edits.shown:
        edits = summary.next_edits
        _row(facts, "next edits", f"{edits.shown:,}", _percent(edits.accepted_share), "of those shown were accepted")
    console.print(facts)
    if summary.latencies:
        console.print("", _latency_table(summary), sep="\n")
    groups = [("language", summary.languages)]
    if len(summary.models) > 1:
        groups.append(("model", summary.models))
    for title, counts in groups:
        console.print("", _counts_table(title, list(counts.items())), sep="\n")
    title, spans = _by_time(rows, summary, since)
    console.print("", _counts_table(title, spans), sep="\n")


def _latency_table(summary: Summary) -> Table:
    table = _table("origin", "shown", "p50 ms", "p95 ms", "p99 ms", "share")
    shown = sum(latency.shown for latency in summary.latencies.values())
    for origin in dict.fromkeys((*ORIGINS, *summary.latencies)):
        if (latency := summary.latencies.get(origin)) is not None:
            times = [f"{time:,.0f}" for time in (latency.p50, latency.p95, latency.p99)]
            _row(table, ORIGINS.get(origin, origin), f"{latency.shown:,}", *times, Bar(latency.shown / shown))
    return table


def _counts_table(title: str, rows: list[tuple[str, Counts]]) -> Table:
    """Each bar is as long as the row's share of the highest `shown`; its solid part is the accepted share."""
    table = _table(title, "shown", "accepted", "share", "saved", "")
    most = max((counts.shown for _, counts in rows), default=0)
    for name, counts in rows:
        bar = Bar(counts.shown / most if most else 0.0, counts.accepted_share or 0.0)
        cells = [f"{counts.shown:,}", f"{counts.accepted:,}", _percent(counts.accepted_share), f"{counts.characters:,}"]
        _row(table, name, *cells, bar)
    return table


def _by_time(rows: list[EventRow], summary: Summary, since: date) -> tuple[str, list[tuple[str, Counts]]]:
    """The heading and the rows of the table by day or week, from the first day with an event to today."""
    first, today = min(row.day for row in rows), date.today()
    no_events = statistics.count(())
    if (today - first).days < MAX_DAY_ROWS:
        days = [first + timedelta(days=number) for number in range((today - first).days + 1)]
        return "day", [(f"{day:%a} {day}", summary.days.get(day, no_events)) for day in days]
    weeks: list[tuple[str, Counts]] = []
    end = today
    while end >= first:
        begin = end - timedelta(days=DAYS_PER_WEEK - 1)
        counts = statistics.count(row for row in rows if begin <= row.day <= end and row.origin != statistics.NEXT_EDIT)
        weeks.append((f"{max(begin, since):%m-%d} to {end:%m-%d}", counts))
        end = begin - timedelta(days=1)
    return "week", weeks[::-1]


def _table(*headings: str) -> Table:
    """A table whose first column is text, whose last is a bar, and whose others are numbers; the bar shrinks first."""
    table = Table(box=None, pad_edge=False)
    for index, heading in enumerate(headings):
        is_last = index == len(headings) - 1
        table.add_column(heading, justify="left" if index == 0 or is_last else "right", no_wrap=not is_last)
    return table


def _row(table: Table, *cells: str | Bar) -> None:
    table.add_row(*(Text(plain(cell)) if isinstance(cell, str) else cell for cell in cells))


def _period(days: int) -> str:
    return "today" if days == 1 else f"in the last {days} days"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"

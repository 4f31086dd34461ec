"""`gesso stats`: the local statistics of suggestions in the editor, as tables and bars in the terminal.

Must not know how the figures come to be.
"""

from __future__ import annotations

import json
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
from infill.cli.support import errors_to_exit_codes, say
from infill.statistics import KEPT_DAYS, Counts, Row, Summary

ORIGINS = {
    "typed": "typed as suggested",
    "cache": "known from before",
    "remainder": "rest of an answer",
    "running": "run on its way",
    "model": "new run of the model",
}
BAR = 20  # columns
MOST_BARS = 14  # rows of the table by time; more days than these are put together to weeks
WEEK = 7


@dataclass(frozen=True)
class Bar:
    """`length` (0 to 1) times `BAR` columns, or what room there is; solid in its first part, `filled` of it."""

    length: float
    filled: float = 1.0

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(0, min(BAR, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        solid, light = "█░" if options.encoding.startswith("utf") else "#-"
        columns = round(min(BAR, options.max_width) * min(1.0, self.length))
        dark = round(columns * min(1.0, self.filled))
        yield Text(solid * dark + light * (columns - dark), style="green")


@errors_to_exit_codes
def stats(
    days: Annotated[
        int | None, typer.Option(min=1, max=KEPT_DAYS, metavar="N", help="The last N days; 30 if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    erase: Annotated[bool, typer.Option("--erase", help="Remove all that was counted.")] = False,
) -> None:
    """Draw what was suggested in your editor, accepted and kept, and how fast it came.

    Counted on this machine, never sent, without any code; nothing is older than 90 days. The editor's setting
    gesso.statistics switches it off.
    """
    path = statistics.default_path()
    if erase:
        if as_json or days is not None:
            raise UsageError("--erase stands alone: it removes everything, and prints nothing.")
        say(f"The statistics in {path} are erased." if statistics.erase(path) else "There are no statistics to erase.")
        return
    period = days or 30
    since = statistics.days_back(period)
    rows = statistics.read(path, since)
    summary = statistics.summarize(rows)
    if as_json:
        cli_support.write_out(json.dumps(_as_json(summary, since), indent=2) + "\n")
    elif not rows:
        say(f"Nothing was suggested {_in_the_last(period)}; `gesso-lsp` counts while it runs in an editor.")
    else:
        _draw(Console(highlight=False), summary, rows, since, period)


def _as_json(summary: Summary, since: date) -> dict[str, Any]:
    def groups(counted: dict[Any, Counts]) -> dict[str, Any]:
        return {str(name): _counts_as_json(counts) for name, counts in counted.items()}

    return {
        "since": since.isoformat(),
        **_counts_as_json(summary.total),
        "settled": summary.settled,
        "kept_share": summary.kept_share,
        "latency_ms": {origin: asdict(found) for origin, found in summary.latencies.items()},
        "languages": groups(summary.languages),
        "models": groups(summary.models),
        "days": groups(summary.days),
    }


def _counts_as_json(counts: Counts) -> dict[str, Any]:
    return {**asdict(counts), "accepted_share": counts.accepted_share}


def _draw(console: Console, summary: Summary, rows: list[Row], since: date, period: int) -> None:
    total = summary.total
    console.print(f"Suggestions {_in_the_last(period)}, since {since}", style="bold")
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(no_wrap=True)
    facts.add_column(justify="right", no_wrap=True)
    facts.add_column(justify="right", no_wrap=True)
    _row(facts, "shown", f"{total.shown:,}", "", "")
    _row(facts, "accepted", f"{total.accepted:,}", _percent(total.accepted_share), "of those shown")
    _row(facts, "partly", f"{total.partly:,}", "", "times a word or a line was taken")
    _row(facts, "rejected", f"{total.rejected:,}", "", "dismissed, or typed over after a look")
    note = "of their text still stood when it had settled" if summary.settled else "nothing has settled yet"
    _row(facts, "kept", f"{summary.settled:,}", _percent(summary.kept_share), note)
    _row(facts, "saved", f"{total.characters:,}", "", "characters that you did not type")
    console.print(facts)
    if summary.latencies:
        console.print("", _latency_table(summary), sep="\n")
    groups = [("language", summary.languages)]
    if len(summary.models) > 1:
        groups.append(("model", summary.models))
    for title, counted in groups:
        console.print("", _counts_table(title, list(counted.items())), sep="\n")
    title, spans = _by_time(rows, summary, since)
    console.print("", _counts_table(title, spans), sep="\n")


def _latency_table(summary: Summary) -> Table:
    table = _table("answered from", "shown", "p50 ms", "p95 ms", "p99 ms", "share")
    shown = sum(found.shown for found in summary.latencies.values())
    order = [*ORIGINS, *(origin for origin in summary.latencies if origin not in ORIGINS)]
    for origin in order:
        if (found := summary.latencies.get(origin)) is not None:
            times = [f"{time:,.0f}" for time in (found.p50, found.p95, found.p99)]
            _row(table, ORIGINS.get(origin, origin), f"{found.shown:,}", *times, Bar(found.shown / shown))
    return table


def _counts_table(title: str, rows: list[tuple[str, Counts]]) -> Table:
    """With a bar for how much was shown, full for the row with the most, its solid part for what was accepted."""
    table = _table(title, "shown", "accepted", "share", "saved", "")
    most = max((counts.shown for _, counts in rows), default=0)
    for name, counts in rows:
        bar = Bar(counts.shown / most if most else 0.0, counts.accepted_share or 0.0)
        cells = [f"{counts.shown:,}", f"{counts.accepted:,}", _percent(counts.accepted_share), f"{counts.characters:,}"]
        _row(table, name, *cells, bar)
    return table


def _by_time(rows: list[Row], summary: Summary, since: date) -> tuple[str, list[tuple[str, Counts]]]:
    """The heading and the rows from the first day with an event until today, day by day or week by week."""
    first, today = min(row.day for row in rows), date.today()
    nothing = statistics.count(())
    if (today - first).days < MOST_BARS:
        days = [first + timedelta(days=number) for number in range((today - first).days + 1)]
        return "day", [(f"{day:%a} {day}", summary.days.get(day, nothing)) for day in days]
    weeks: list[tuple[str, Counts]] = []
    end = today
    while end >= first:
        begin = end - timedelta(days=WEEK - 1)
        counts = statistics.count(row for row in rows if begin <= row.day <= end)
        weeks.append((f"{max(begin, since):%m-%d} to {end:%m-%d}", counts))
        end = begin - timedelta(days=1)
    return "week", weeks[::-1]


def _table(*headings: str) -> Table:
    """Text left, figures right, and last a bar, which gives way where the window is narrow."""
    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        figures = 0 < number < len(headings) - 1
        table.add_column(heading, justify="right" if figures else "left", no_wrap=number < len(headings) - 1)
    return table


def _row(table: Table, *cells: str | Bar) -> None:
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def _in_the_last(days: int) -> str:
    return "today" if days == 1 else f"in the last {days} days"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"

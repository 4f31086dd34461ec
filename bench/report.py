"""What every measurement reports: conditions, medians with their spread, a table, a JSON and a Markdown file.

Knows nothing of what is measured.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from engine.device import describe

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements, in the unit of the measurements."""

    median: float
    lower: float
    upper: float
    samples: tuple[float, ...]

    @staticmethod
    def of(samples: Sequence[float]) -> Spread:
        """At least one sample; with a single one the quartiles are that one."""
        ordered = sorted(samples)
        lower, median, upper = (
            statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
        )
        return Spread(median, lower, upper, tuple(samples))

    def __str__(self) -> str:
        digits = 0 if self.median >= 100 else 1
        return f"{self.median:.{digits}f} ({self.lower:.{digits}f}–{self.upper:.{digits}f})"

    def to_json(self) -> dict[str, Any]:
        return {
            "median": self.median,
            "quartiles": [self.lower, self.upper],
            "samples": [round(sample, 4) for sample in self.samples],
        }


def ratios(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """slow / fast for measurements that were taken in turns: each pair ran under the same load."""
    return Spread.of([a / b for a, b in zip(slow, fast, strict=True)])


def interleaved(
    contestants: Mapping[str, Callable[[], object]], repeats: int, progress: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Milliseconds of every contestant, run in turns `repeats` times: load on the machine hits them all."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, contestant in contestants.items():
            started = perf_counter()
            contestant()
            times[name].append(1000 * (perf_counter() - started))
            progress()
    return times


def conditions() -> dict[str, Any]:
    """The machine and the versions that a figure depends on."""
    machine = describe()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": machine["cpu"],
        "cores": machine["usable_cores"],
        "capability": machine["capability"],
        "bfloat16": machine["bfloat16"],
        "threads": torch.get_num_threads(),
        "load": _load(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }


@dataclass(frozen=True)
class Report:
    """A title, the conditions, a table of strings, notes for its reader, and the figures for machines."""

    title: str
    conditions: Mapping[str, Any]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    figures: Any

    def show(self, console: Console | None = None) -> None:
        console = console or Console()
        table = Table(*self.header, title=self.title)
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for note in (_in_words(self.conditions), *self.notes):
            console.print(f"- {note}", highlight=False)

    def write(self, name: str, folder: Path = RESULTS) -> list[Path]:
        """Writes NAME.json and NAME.md into `folder` and returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {"title": self.title, "conditions": dict(self.conditions), "notes": list(self.notes)}
        files = [folder / f"{name}.json", folder / f"{name}.md"]
        files[0].write_text(json.dumps({**content, "figures": self.figures}, indent=1) + "\n", "utf-8")
        files[1].write_text(self._markdown(), "utf-8")
        return files

    def _markdown(self) -> str:
        lines = [f"# {self.title}", "", _in_words(self.conditions), ""]
        lines += [_markdown_row(self.header), _markdown_row(["---"] * len(self.header))]
        lines += [_markdown_row(row) for row in self.rows]
        lines += ["", *[f"- {note}" for note in self.notes]]
        return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _in_words(conditions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in conditions.items())


def _load() -> float | None:
    """Mean number of processes that wanted to run in the last minute, where the system tells."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None

"""What every benchmark reports: conditions, medians with quartiles, a table, a JSON file and a Markdown file.

Must not know what is measured.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from engine.device import describe
from infill.version import installed_version

RESULTS = Path(__file__).parent / "results"
DRY_RUN = "A dry run at tiny shapes: the times mean nothing."
DIGITS = 5  # significant digits of a number in a result file
LINE = 400  # characters; a row of a table stays on one line of a result file


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements, in the unit of the measurements."""

    median: float
    lower: float
    upper: float
    samples: tuple[float, ...]

    @staticmethod
    def of(samples: Sequence[float]) -> Spread:
        """Needs at least one sample. The quartiles of a single sample are that sample."""
        ordered = sorted(samples)
        lower, median, upper = (
            statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
        )
        return Spread(median, lower, upper, tuple(samples))

    def __str__(self) -> str:
        digits = 0 if self.median >= 100 else 1
        return f"{self.median:.{digits}f} ({self.lower:.{digits}f}–{self.upper:.{digits}f})"

    def to_json(self) -> dict[str, Any]:
        """The samples themselves are left out."""
        return {"median": self.median, "quartiles": [self.lower, self.upper], "samples": len(self.samples)}


def ratios(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """slow / fast, pair by pair. The two runs of a pair ran one after the other, so under the same load."""
    return Spread.of([a / b for a, b in zip(slow, fast, strict=True)])


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` (0 to 1) of the samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def interleaved(
    contestants: Mapping[str, Callable[[], object]], repeats: int, progress: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Milliseconds of every contestant. They take turns `repeats` times, so load on the machine affects all alike."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, contestant in contestants.items():
            started = perf_counter()
            contestant()
            times[name].append(1000 * (perf_counter() - started))
            progress()
    return times


def conditions(device: torch.device | None = None) -> dict[str, Any]:
    """The machine and the versions that a figure depends on. device: the one measured, if it may be a GPU."""
    machine = describe()
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": machine["cpu"],
        "cores": machine["usable_cores"],
        "capability": machine["capability"],
        "bfloat16": machine["bfloat16"],
        "threads": torch.get_num_threads(),
        "load": _load(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": installed_version("transformers"),
    }
    if device is not None and device.type == "cuda":
        found |= {"triton": installed_version("triton"), "cuda": torch.version.cuda}
        found |= {"gpu": torch.cuda.get_device_name(device), "driver": _driver()}
    return found


def _load() -> float | None:
    """The load average of the last minute; None if the system does not report it."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _driver() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip().partition("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def free_memory() -> None:
    """Returns the memory of models that are no longer referenced to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_gpu_bytes(device: torch.device) -> int | None:
    """The peak of allocated GPU memory since the last `torch.cuda.reset_peak_memory_stats`; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


@dataclass(frozen=True)
class Report:
    """A title, the conditions, a table of strings, notes for the reader, and figures for programs.

    figures: anything that `json_text` accepts.
    """

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
        """Writes NAME.json (without the notes) and NAME.md into `folder` and returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {"title": self.title, "conditions": dict(self.conditions), "figures": self.figures}
        files = [folder / f"{name}.json", folder / f"{name}.md"]
        files[0].write_text(json_text(content), "utf-8")
        files[1].write_text(self._markdown(), "utf-8")
        return files

    def _markdown(self) -> str:
        lines = [f"# {self.title}", "", _in_words(self.conditions), "", *markdown_table(self.header, self.rows), ""]
        return "\n".join([*lines, *(f"- {note}" for note in self.notes)]) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _in_words(conditions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in conditions.items())


def json_text(content: Any) -> str:
    """JSON that stays small and reads well in a diff: floats with DIGITS digits, spreads without their samples, and
    what fits within LINE characters on one line."""
    return _json_text(_plain(content), "") + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        value = value.to_json()
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _json_text(value: Any, indent: str) -> str:
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or (indent and len(indent) + len(line) <= LINE):
        return line
    inner = indent + " "
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {_json_text(part, inner)}" for name, part in value.items()]
    else:
        parts = [_json_text(part, inner) for part in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{closing}"

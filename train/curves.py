"""Reads logs of train.run and draws their losses against the tokens seen.

`python -m train.curves RUN [RUN…] --out FILE.svg`, where RUN is the folder of a run or its log. Drawing needs
matplotlib (the extra `train`). Must not know how a run was made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from engine.errors import InputError, UsageError
from train.program import reports_errors

console = Console(highlight=False)

WIDTH = 0.008  # of the smoothing kernel, as a share of the records
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito
LOSSES = (("causal", "next token"), ("hole", "holes"))  # field of the log, title
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "gesso",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
}
Series = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Run:
    """The records of a log, ordered by step."""

    label: str
    records: list[dict[str, Any]]

    def series(self, name: str) -> Series:
        """(tokens, values) of the records with this field."""
        found = [(record["tokens"], record[name]) for record in self.records if name in record]
        tokens, values = np.array(found, dtype=np.float64).reshape(-1, 2).T
        return tokens, values

    def phases(self) -> list[tuple[str, float, float]]:
        """(phase, first tokens, last tokens) without gaps."""
        spans: list[tuple[str, float, float]] = []
        for record in self.records:
            name, tokens = record["phase"], float(record["tokens"])
            begun = spans[-1][2] if spans else 0.0
            if spans and spans[-1][0] == name:
                name, begun, _ = spans.pop()
            spans.append((name, begun, tokens))
        return spans


def read_run(path: Path, label: str) -> Run:
    """Reads a log. Records that a run repeated after a resumption replace the older ones.

    Raises InputError if there is no log, or if it is not a log of train.run.
    """
    log = path if path.is_file() else path / "log.jsonl"
    if not log.is_file():
        raise InputError(f"There is no {log}; name a folder written by `python -m train.run`.")
    records: list[dict[str, Any]] = []
    try:
        for line in log.read_text().splitlines():
            record = json.loads(line)
            while records and records[-1]["step"] > record["step"]:
                records.pop()
            if not {"step", "tokens", "phase"} <= set(record):
                raise KeyError
            if records and records[-1]["step"] == record["step"]:
                record = records.pop() | record
            records.append(record)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{log} is not a log of train.run: line {len(records) + 1} cannot be read.") from error
    if not records:
        raise InputError(f"{log} is empty; wait for the first steps.")
    return Run(label, records)


def smoothed(values: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Centered mean, weighted by a normal curve with a standard deviation of `width` values."""
    reach = min(int(np.ceil(3 * width)), len(values) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    inside = slice(reach, reach + len(values))
    return np.convolve(values, kernel)[inside] / np.convolve(np.ones(len(values)), kernel)[inside]


def _draw_loss(axes: Any, run: Run, name: str, color: str) -> list[float]:
    """Draws training losses (faint, and smoothed within each phase) and held-out losses (points). Returns the values
    that must be visible."""
    tokens, values = run.series(name)
    width = max(1.0, WIDTH * len(run.records))
    visible: list[float] = []
    for _, first, last in run.phases():
        inside = (tokens > first) & (tokens <= last)
        if inside.sum() < 2:
            continue
        line = smoothed(values[inside], width)
        axes.plot(tokens[inside] / 1e6, values[inside], color=color, linewidth=0.5, alpha=0.25)
        axes.plot(tokens[inside] / 1e6, line, color=color, linewidth=1.4)
        visible += line.tolist()
    tokens, values = run.series(f"valid_{name}")
    axes.plot(tokens / 1e6, values, "o--", color=color, linewidth=0.8, markersize=4, markerfacecolor="white")
    return visible + values.tolist()


def _set_limits(axes: Any, visible: Sequence[float]) -> None:
    """Cuts off the steep drop at the start, which would flatten the rest."""
    low, high = min(visible), max(float(np.quantile(visible, 0.94)), min(visible) + 0.1)
    margin = 0.06 * (high - low)
    axes.set_ylim(low - margin, high + margin)


def _mark_phases(all_axes: Sequence[Any], runs: Sequence[Run]) -> None:
    """One run: bands with names. Several runs: a line at the end of each phase, in the color of the run."""
    if len(runs) > 1:
        for run, color in zip(runs, COLORS * len(runs), strict=False):
            for _, _, last in run.phases()[:-1]:
                for axes in all_axes:
                    axes.axvline(last / 1e6, color=color, linewidth=0.8, linestyle=":")
        return
    for index, (name, first, last) in enumerate(runs[0].phases()):
        for axes in all_axes:
            if index % 2:
                axes.axvspan(first / 1e6, last / 1e6, color="#f2f2f2", zorder=0, linewidth=0)
        middle = (first + last) / 2e6
        above = all_axes[0].get_xaxis_transform()
        all_axes[0].text(middle, 1.02, f"{name} phase", transform=above, ha="center", va="bottom", color="#666666")


def draw(runs: Sequence[Run], out: Path) -> None:
    """Writes the picture in the format given by the suffix of `out`.

    Raises InputError without matplotlib, and for an unknown format.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("Drawing needs matplotlib; install it with `pip install matplotlib`.") from error
    if out.suffix.lstrip(".") not in (formats := ("svg", "png", "pdf")):
        raise InputError(f"The picture {out} must end in one of {', '.join(formats)}.")
    losses = [loss for loss in LOSSES if any(len(run.series(loss[0])[0]) for run in runs)]
    if not losses:
        raise InputError("The logs have no losses yet; wait for the first steps.")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.5 * len(losses) + 1.4), layout="constrained", facecolor="white")
        grid = figure.subplots(len(losses) + 1, 1, sharex=True, height_ratios=[3] * len(losses) + [1])
        for axes, (name, title) in zip(grid, losses, strict=False):
            visible: list[float] = []
            for run, color in zip(runs, COLORS * len(runs), strict=False):
                visible += _draw_loss(axes, run, name, color)
            _set_limits(axes, visible)
            axes.set_ylabel(f"{title}\nnats per token")
        for run, color in zip(runs, COLORS * len(runs), strict=False):
            tokens, rate = run.series("rate")
            grid[-1].plot(tokens / 1e6, rate, color=color, linewidth=1.2)
        grid[-1].set_ylim(0, 1.08)
        grid[-1].set_ylabel("learning\nrate, share")
        grid[-1].set_xlabel("million tokens")
        grid[-1].set_xlim(left=0)
        _mark_phases(grid, runs)
        _legend(grid[0], runs)
        metadata = {"Date": None} if out.suffix == ".svg" else None
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=160, metadata=metadata)


def _legend(axes: Any, runs: Sequence[Run]) -> None:
    axes.plot([], [], color="#666666", linewidth=1.4, label="training, smoothed")
    axes.plot([], [], "o--", color="#666666", linewidth=0.8, markersize=4, markerfacecolor="white", label="held out")
    if len(runs) > 1:
        for run, color in zip(runs, COLORS * len(runs), strict=False):
            axes.plot([], [], color=color, linewidth=1.4, label=run.label)
    axes.legend(loc="upper right", ncols=1 if len(runs) == 1 else 2)


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of training runs.")],
    out: Annotated[Path, typer.Option(help="Picture: .svg, .png or .pdf.")],
    label: Annotated[list[str] | None, typer.Option(help="Names of the runs; default: their folders.")] = None,
) -> None:
    """Draw the loss curves of training runs."""
    labels = label or [(run if run.is_dir() else run.absolute().parent).name for run in runs]
    if len(labels) != len(runs):
        raise UsageError(f"Give one --label for each of the {len(runs)} runs, or none.")
    draw([read_run(run, name) for run, name in zip(runs, labels, strict=True)], out)
    console.print(f"{out}: {len(runs)} runs" if len(runs) > 1 else str(out))


if __name__ == "__main__":
    typer.run(reports_errors(main))

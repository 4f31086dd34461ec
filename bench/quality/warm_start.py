"""Is the text as good, and how many steps does it take, if a canvas starts from that of the last key?

`python -m bench.quality.warm_start --corpus DIR` types the end of held-out lines key by key, removes some keys again,
and asks after each, once with the last canvas and once without. Must not know how a canvas is made.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from bench.report import RESULTS, Report, conditions
from infill.cli.support import load_completer
from infill.complete.completion import Completer
from infill.request import Hole, InfillRequest, InfillResult
from infill.settings import Settings
from train.held_out import HeldOutHole, cut_holes, for_judging, read_held_out
from train.program import reports_errors

KEYS = 10  # per line
REMOVED_AFTER = 5  # keys; then one is removed again


@dataclass
class Row:
    """Sums over `requests`: steps of the denoiser, and whether the best text was shown, exact, and both."""

    requests: int = 0
    steps: int = 0
    shown: int = 0
    exact: int = 0
    shown_exact: int = 0

    def add(self, result: InfillResult, truth: str) -> None:
        (completion,) = result.completions
        exact = completion.text.strip() == truth.strip()
        self.requests += 1
        self.steps += result.steps
        self.shown += completion.shown
        self.exact += exact
        self.shown_exact += exact and completion.shown

    def cells(self) -> list[str]:
        shares = (
            self.exact / self.requests,
            self.shown / self.requests,
            self.shown_exact / max(self.shown, 1),
            self.shown_exact / self.requests,
        )
        steps = f"{self.steps / self.requests:.1f}"
        return [f"{self.requests}", steps, *(f"{100 * share:.1f} %" for share in shares)]


def typed_texts(hole: HeldOutHole) -> list[tuple[str, str]]:
    """What was done, and the part of the line that is there afterwards."""
    truth = hole.truth.rstrip("\n")
    lengths = range(1, min(KEYS, len(truth) - 1) + 1)
    found = [("typed", truth[:length]) for length in lengths]
    if len(found) > REMOVED_AFTER:
        found.insert(REMOVED_AFTER, ("removed", truth[: REMOVED_AFTER - 1]))
    return found


def measure(completer: Completer, hole: HeldOutHole, rows: dict[tuple[str, str], Row]) -> None:
    def ask(typed: str) -> InfillResult:
        text, at = hole.before + typed, len(hole.before) + len(typed)
        request = InfillRequest(text + hole.after, (Hole(at, at),), hole.language, hole.path, "one")
        return completer.complete(request)

    completer.last_draft = replace(completer.last_draft, canvas=None)
    ask("")
    for kind, typed in typed_texts(hole):
        last, truth = completer.last_draft, hole.truth[len(typed) :]
        agrees = last.canvas is not None and bool(last.canvas.rest(hole.before + typed))
        kind = kind if kind == "removed" else "typed as drafted" if agrees else "typed otherwise"
        completer.last_draft = replace(last, canvas=None)
        rows[kind, "cold"].add(ask(typed), truth)
        completer.last_draft = last
        rows[kind, "warm"].add(ask(typed), truth)


def main(
    corpus: Annotated[Path, typer.Option(help="Folder of held-out projects.")],
    count: Annotated[int, typer.Option(help="Lines.")] = 60,
    model: str = "pocket",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare canvases that start from the last one with canvases of noise; writes warm_start.*."""
    completer = load_completer(Settings(model=model, threads=1))
    assert isinstance(completer, Completer), "a model with a denoiser"
    holes = cut_holes(for_judging(read_held_out(corpus, ["python"])), "python", "rest of line", count, seed=5)
    rows: dict[tuple[str, str], Row] = defaultdict(Row)
    for hole in holes:
        measure(completer, hole, rows)
    lines = [[kind, start, *row.cells()] for (kind, start), row in sorted(rows.items())]
    figures = [{"kind": kind, "canvas": start, **asdict(row)} for (kind, start), row in sorted(rows.items())]
    report = Report(TITLE, conditions(), HEADER, lines, NOTES, {"model": model, "rows": figures})
    report.show()
    for file in report.write("warm_start", out):
        print(file)


TITLE = "The next key, with the canvas of the last one and with noise"
HEADER = ("key", "canvas", "requests", "steps a request", "exact", "shown", "right of these", "shown and right")
NOTES = (
    "Held-out lines of Python, typed key by key from a place within the line. As drafted: the key is the next "
    "character of the last canvas. Both rows of a key answer the same requests; the canvas that the next key starts "
    "from is that of the warm row.",
)


if __name__ == "__main__":
    typer.run(reports_errors(main))

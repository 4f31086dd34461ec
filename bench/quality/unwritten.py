"""What would an editor show while code is being written, when the lines below are not there yet?

`python -m bench.quality.unwritten --corpus DIR` cuts holes of one line into held-out projects, removes up to eight
lines after each hole, and asks for a completion as the language server does. Must not know how a completion is made.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.report import conditions, json_text, percentile
from infill.cli.support import load_completer
from infill.complete.pipeline import AnyCompleter
from infill.request import Hole, InfillRequest
from infill.settings import Settings
from lsp.inline_completion import UNWRITTEN_CAUTION
from train.held_out import HeldOutHole, Neighbourhood, cut_holes, for_judging, read_held_out
from train.program import reports_errors

KINDS = ("rest of line", "line")
LINES = 8
RESULT = Path(__file__).parents[1] / "results" / "coder_unwritten.json"


@dataclass
class Row:
    """Shares of the holes: whole, beginning: shown as such. Shares of those shown: exact, right (the truth begins so).

    saved: share of the characters that right suggestions write.
    """

    kind: str
    holes: int
    whole: float
    exact: float
    beginning: float
    right: float
    saved: float
    p50_ms: float


def unwritten(hole: HeldOutHole, index: int) -> str:
    """The text after the hole without the next 0 to LINES lines."""
    count = random.Random(f"{index} {hole.path}").randint(0, LINES)
    return "\n" + "\n".join(hole.after.split("\n")[1 + count :])


def measure(completer: AnyCompleter, holes: Sequence[HeldOutHole], neighbourhood: Neighbourhood) -> Row:
    whole, exact, beginnings, right, saved = 0, 0, 0, 0, 0
    times = []
    for index, hole in enumerate(holes):
        at = Hole(len(hole.before), len(hole.before))
        caution = 1.0 if hole.before.rpartition("\n")[2].strip() else UNWRITTEN_CAUTION
        request = InfillRequest(
            hole.before + unwritten(hole, index),
            (at,),
            hole.language,
            hole.path,
            "one",
            neighbours=neighbourhood.of(hole),
            caution=caution,
            beginning=True,
        )
        started = time.perf_counter()
        completion = completer.complete(request).completions[0]
        times.append(1000 * (time.perf_counter() - started))
        if not completion.shown:
            continue
        text, truth = completion.text.strip(), hole.truth.strip()
        is_right = truth.startswith(text)
        if completion.candidates[0].beginning:
            beginnings, right = beginnings + 1, right + is_right
        else:
            whole, exact = whole + 1, exact + (text == truth)
        saved += len(text) if is_right else 0
    count = max(1, len(holes))
    return Row(
        holes[0].kind,
        len(holes),
        whole / count,
        exact / max(1, whole),
        beginnings / count,
        right / max(1, beginnings),
        saved / max(1, sum(len(hole.truth.strip()) for hole in holes)),
        percentile(times, 0.5),
    )


def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by train.corpus.")],
    model: Annotated[str, typer.Option(help="Name of a code model.")] = "coder",
    language: Annotated[str, typer.Option(help="Language of the holes.")] = "python",
    count: Annotated[int, typer.Option(min=1, help="Holes per kind.")] = 60,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads at most.")] = 8,
    out: Annotated[Path, typer.Option(help="File for the figures.")] = RESULT,
) -> None:
    """Measure what is shown where the lines below are not written yet."""
    files = for_judging(read_held_out(corpus, [language]))
    completer = load_completer(Settings(model=model, threads=threads))
    groups = [cut_holes(files, language, kind, count, seed=3) for kind in KINDS]
    rows = [measure(completer, holes, Neighbourhood(files)) for holes in groups if holes]
    table = Table(
        "hole", "shown whole", "of these exact", "beginning shown", "of these right", "characters saved", "ms"
    )
    for row in rows:
        shares = (row.whole, row.exact, row.beginning, row.right, row.saved)
        table.add_row(f"{row.kind} ({row.holes})", *(f"{share:.0%}" for share in shares), f"{row.p50_ms:.0f}")
    Console().print(table)
    found = {"model": model, "language": language, "rows": [asdict(row) for row in rows]}
    out.write_text(json_text({"conditions": conditions(), **found}), "utf-8")


if __name__ == "__main__":
    typer.run(reports_errors(main))

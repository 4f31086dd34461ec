"""Whether a code model sees that a line beside an edit has to change too.

`python -m bench.edits.near OLD NEW [OLD NEW …]`, releases as for `bench.edits.next`. After a hunk, the model writes the
nearest lines above and below it again. A line is offered if the model wrote it as it is before the edit, and writes
something else after it, with enough confidence. It is right if it makes the text more like the newer release by all
that it changes. Measures what would be offered; Gesso does not offer it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from bench.edits.next import MOST_LINES, Walk, changed_files, hunks, is_right
from bench.lint.releases import read_package
from bench.report import RESULTS, Report, conditions
from engine.errors import UsageError
from infill.cli.support import errors_to_exit_codes
from infill.complete.pipeline import load_model, make_completer
from infill.next_edit.edits import Place, Proposal, UserEdit
from infill.request import Hole, HoleCompletion, InfillRequest
from infill.settings import Settings

NEAR = 2  # lines above and below an edit
LEAST = 4  # characters of a line
THRESHOLDS = (0.0, 0.5, 0.7, 0.8, 0.9)

Hunk = tuple[str, str, str, tuple[str, int, int, int, int]]  # path, old text, new text, lines
Complete = Callable[[str, int, int], HoleCompletion]


@dataclass(frozen=True)
class Offer:
    """A line that the model changes. right: None if nothing was due."""

    path: str
    line: str
    text: str
    confidence: float
    right: bool | None


def lines_near(text: str, edit: UserEdit) -> Iterator[tuple[int, int]]:
    """The spans of the nearest lines with code above and below the edit, without their indentation."""
    first, last = text.rfind("\n", 0, edit.start) + 1, text.find("\n", max(edit.start, edit.end - 1))
    spans = []
    at = 0
    for line in text.split("\n"):
        stripped = line.strip()
        begin = at + len(line) - len(line.lstrip())
        if len(stripped) >= LEAST and not stripped.startswith("#"):
            spans.append((begin, begin + len(stripped)))
        at += len(line) + 1
    yield from [span for span in spans if span[1] < first][-NEAR:]
    if last >= 0:
        yield from [span for span in spans if span[0] > last][:NEAR]


def changed_lines(text: str, edit: UserEdit, complete: Complete) -> Iterator[tuple[int, int, HoleCompletion]]:
    """The lines beside the edit that the model knew before it and writes in another way now."""
    before = text[: edit.start] + edit.old + text[edit.end :]
    shift = len(edit.old) - len(edit.new)
    for start, end in lines_near(text, edit):
        line = text[start:end]
        now = complete(text, start, end)
        if not now.shown or now.text.strip() in ("", line) or "\n" in now.text:
            continue
        moved = shift if start >= edit.end else 0
        if complete(before, start + moved, end + moved).text.strip() == line:
            yield start, end, now


def offers(walk: Walk, hunk: tuple[str, int, int, int, int], due: bool, complete: Complete) -> list[Offer]:
    walk.take(hunk)
    if not walk.history.edits:
        return []
    found = []
    for start, end, now in changed_lines(walk.text, walk.history.edits[-1], complete):
        proposal = Proposal("repeat", (Place(start, end, now.text),), "", 1.0, start)
        right = is_right(walk.text, walk.new, proposal) if due else None
        found.append(Offer(walk.path, walk.text[start:end], now.text, now.confidence, right))
    return found


@errors_to_exit_codes
def main(
    releases: Annotated[list[Path], typer.Argument(metavar="OLD NEW…", help="Folders or archives, in pairs.")],
    model: Annotated[str, typer.Option(help="A code model.")] = "coder",
    most: Annotated[int, typer.Option(help="Edits of each sort.")] = 100,
    write: Annotated[bool, typer.Option(help="Write bench/results/near_edits.json and .md.")] = False,
) -> None:
    """Measure rewrites beside an edit."""
    if len(releases) % 2:
        raise UsageError("Releases come in pairs, the older one first; add the missing one.")
    settings = Settings(model=model)
    filler = make_completer(load_model(settings), settings)

    def complete(text: str, start: int, end: int) -> HoleCompletion:
        request = InfillRequest(text, (Hole(start, end),), language="python", lines="one")
        return filler.complete(request).completions[0]

    due: list[Hunk] = []
    lone: list[Hunk] = []
    for old, new in zip(releases[::2], releases[1::2], strict=True):
        for path, language, before, after in changed_files(read_package(old), read_package(new)):
            codes = hunks(before, after)
            small = [code for code in codes if max(code[2] - code[1], code[4] - code[3]) <= MOST_LINES]
            if language == "python":
                (lone if len(codes) == 1 else due).extend((path, before, after, code) for code in small)
    chance = random.Random(0)
    console = Console(stderr=True)
    results: dict[str, list[list[Offer]]] = {}
    for name, cases in (("something due", due), ("nothing due", lone)):
        chance.shuffle(cases)
        results[name] = []
        for path, before, after, code in track(cases[:most], name, console=console, transient=True):
            walk = Walk(path, "python", before, after)
            results[name].append(offers(walk, code, name == "something due", complete))
            for one in results[name][-1]:
                console.print(f"{name}: {one.right} {one.confidence:.2f} {one.line} -> {one.text}", markup=False)
    result = report(model, results)
    result.show()
    if write:
        result.write("near_edits", RESULTS)


def report(model: str, results: dict[str, list[list[Offer]]]) -> Report:
    rows = []
    for threshold in THRESHOLDS:
        for name, cases in results.items():
            offered = [found for case in cases if (found := _first(case, threshold)) is not None]
            right = sum(bool(one.right) for one in offered)
            share = f"{len(offered)} of {len(cases)}"
            rows.append(
                [name, f"{threshold:g}", share, f"{right} of {len(offered)}" if name == "something due" else ""]
            )
    notes = [
        "The best line for each edit. A line is offered if the model wrote it as it is before the edit, and writes "
        "something else after it with at least this confidence. Right: it makes the text more like the newer release "
        "by all that it changes."
    ]
    figures = {name: [asdict(one) for case in cases for one in case] for name, cases in results.items()}
    header = ("edits", "confidence", "offered", "right")
    return Report("Lines beside an edit", {"model": model, **conditions()}, header, rows, notes, figures)


def _first(case: Sequence[Offer], threshold: float) -> Offer | None:
    found = [one for one in case if one.confidence >= threshold]
    return max(found, key=lambda one: one.confidence, default=None)


if __name__ == "__main__":
    typer.run(main)

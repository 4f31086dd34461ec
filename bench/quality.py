"""How good are the completions on projects the model has not seen? A table by language and kind of hole.

Reads the held-out files of a corpus made by `train.corpus`, cuts holes into them, fills them with the shipped
pipeline, and compares with what stood there. Prints a table, writes JSON. The JSON keeps confidence and hit of
every hole, from which the threshold of showing is calibrated.
"""

from __future__ import annotations

import difflib
import gzip
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from engine.errors import GessoError
from infill.completion import Completer
from infill.request import Hole, InfillRequest, InfillResult
from infill.settings import Settings
from infill.syntax import error_score, parse

KINDS = ("token span", "rest of line", "line")
console = Console(highlight=False)


@dataclass(frozen=True)
class Sample:
    language: str
    kind: str
    path: str
    before: str
    truth: str
    after: str


@dataclass(frozen=True)
class Outcome:
    language: str
    kind: str
    exact: bool
    similarity: float
    parses: bool
    shown: bool
    confidence: float
    source: str
    steps: int
    length: int
    true_length: int


def held_out(corpus: Path, languages: list[str]) -> Iterator[dict[str, Any]]:
    for shard in sorted(corpus.glob("files-*.jsonl.gz")):
        with gzip.open(shard, "rt") as lines:
            for line in lines:
                record = json.loads(line)
                if record["split"] == "valid" and record["language"] in languages:
                    yield record


def cut_hole(record: dict[str, Any], kind: str, rng: np.random.Generator) -> Sample | None:
    """A hole of `kind` at a random code line of the file, or None where that line will not do."""
    text = record["text"].replace("\r\n", "\n")
    starts = [0, *(i + 1 for i, c in enumerate(text) if c == "\n")]
    number = int(rng.integers(len(starts) // 4, len(starts)))
    start = starts[number]
    end = text.find("\n", start)
    line = text[start : end if end != -1 else len(text)]
    code = line.strip()
    if end == -1 or not 8 <= len(code) <= 100 or code[0] in "#/*\"'":
        return None
    if kind == "line":
        start, end = start, end + 1
    elif kind == "rest of line":
        indent = len(line) - len(line.lstrip())
        start += indent + int(rng.integers(2, max(3, len(code) - 3)))
    else:
        indent = len(line) - len(line.lstrip())
        first = indent + int(rng.integers(1, len(code) - 2))
        length = int(rng.integers(1, 12))
        start, end = start + first, min(start + first + length, end)
    truth = text[start:end]
    if not truth.strip():
        return None
    return Sample(record["language"], kind, record["path"], text[:start], truth, text[end:])


def samples(corpus: Path, languages: list[str], count: int, seed: int) -> list[Sample]:
    """`count` holes for every kind, spread over files; the same for the same seed."""
    rng = np.random.default_rng(seed)
    files = list(held_out(corpus, languages))
    chosen = []
    for kind in KINDS:
        found: list[Sample] = []
        while len(found) < count:
            sample = cut_hole(files[int(rng.integers(len(files)))], kind, rng)
            if sample is not None:
                found.append(sample)
        chosen += found
    return chosen


def judge(sample: Sample, result: InfillResult) -> Outcome:
    best = result.completions[0]
    whole = parse(sample.before + best.text + sample.after, sample.language)
    original = parse(sample.before + sample.truth + sample.after, sample.language)
    parses = whole is None or original is None or error_score(whole).errors <= error_score(original).errors
    return Outcome(
        sample.language,
        sample.kind,
        best.text.strip() == sample.truth.strip(),
        difflib.SequenceMatcher(None, best.text.strip(), sample.truth.strip(), autojunk=False).ratio(),
        parses,
        best.shown,
        best.confidence,
        best.candidates[0].source,
        result.steps,
        len(best.text.strip()),
        len(sample.truth.strip()),
    )


def table(outcomes: list[Outcome]) -> Table:
    rows: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        rows[outcome.language, outcome.kind].append(outcome)
    view = Table(title="Held-out projects")
    for column in ("language", "hole", "holes", "exact", "similarity", "parses", "shown", "exact of shown", "steps"):
        view.add_column(column)
    for (language, kind), group in sorted(rows.items()):
        shown = [one for one in group if one.shown]
        view.add_row(
            language,
            kind,
            str(len(group)),
            f"{np.mean([one.exact for one in group]):.1%}",
            f"{np.mean([one.similarity for one in group]):.2f}",
            f"{np.mean([one.parses for one in group]):.1%}",
            f"{len(shown) / len(group):.1%}",
            f"{np.mean([one.exact for one in shown]):.1%}" if shown else "-",
            f"{np.mean([one.steps for one in group]):.1f}",
        )
    return view


def main(
    corpus: Annotated[Path, typer.Option(help="Folder that train.corpus wrote.")],
    model: Annotated[str, typer.Option(help="Model to judge.")] = "pocket",
    language: Annotated[list[str] | None, typer.Option(help="Languages; Python by default.")] = None,
    count: Annotated[int, typer.Option(help="Holes of each kind.")] = 100,
    seed: Annotated[int, typer.Option(help="Choice of holes.")] = 1,
    batch: Annotated[int, typer.Option(help="Holes a batch.")] = 8,
    copies: Annotated[bool, typer.Option(help="Let drafts copied from context compete.")] = True,
    output: Annotated[Path | None, typer.Option(help="JSON with every outcome.")] = None,
) -> None:
    """Judge a model on held-out projects."""
    try:
        completer = Completer.load(Settings(model=model, copy_drafts=copies))
    except GessoError as error:
        console.print(f"[red]{error}[/]")
        raise typer.Exit(3) from error
    chosen = samples(corpus, language or ["python"], count, seed)
    outcomes: list[Outcome] = []
    started = time.perf_counter()
    for at in range(0, len(chosen), batch):
        group = chosen[at : at + batch]
        requests = [
            InfillRequest(
                one.before + one.after, (Hole(len(one.before), len(one.before)),), one.language, one.path, "one"
            )
            for one in group
        ]
        for sample, result in zip(group, completer.complete_batch(requests), strict=True):
            if isinstance(result, GessoError):
                console.print(f"[red]{sample.path}: {result}[/]")
            else:
                outcomes.append(judge(sample, result))
    console.print(table(outcomes))
    spent = 1000 * (time.perf_counter() - started) / max(len(outcomes), 1)
    console.print(f"{spent:.0f} ms a hole in batches of {batch}")
    if output is not None:
        output.write_text(json.dumps([asdict(one) for one in outcomes], indent=1))


if __name__ == "__main__":
    typer.run(main)

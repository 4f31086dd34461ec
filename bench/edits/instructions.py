"""The share of small rewrites by instruction after which the tests of the code pass, by model.

`python -m bench.edits.instructions` runs the rewrites of `instructions.md`, which this project wrote. Code that a model
writes is run in a process of its own, with limits on time and memory, in an empty folder. Needs node, gcc and bash for
the languages of those.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.report import Report, Spread, conditions
from infill.cli.support import errors_to_exit_codes
from infill.code.languages import get
from infill.complete.pipeline import load_model
from infill.edit.rewriter import Rewriter
from infill.edit_request import EditRequest, EditResult
from infill.settings import Settings

FILE = Path(__file__).with_suffix(".md")
BLOCK = r"```{}\n(?P<{}>(?s:.+?))```"
SECTION = re.compile(
    rf"^## (?P<name>.+)\n\n(?P<instruction>.+)\n\n{BLOCK.format('(?P<language>[a-z]+)', 'code')}\n\n"
    rf"{BLOCK.format('(?P=language)', 'tests')}",
    re.MULTILINE,
)
# The ending of a file's name, the programs that a language needs, and the commands to run a file.
LANGUAGES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "python": ("py", (), (f"{sys.executable} -I {{}}",)),
    "javascript": ("js", ("node",), ("node {}",)),
    "c": ("c", ("gcc",), ("gcc -std=c11 -o program {}", "./program")),
    "bash": ("sh", ("bash",), ("bash {}",)),
}
SECONDS, MEMORY = 10, 1 << 30  # of a run of the tests
HEADER = ["model", "pass", "shown", "pass of shown", "s"]


@dataclass(frozen=True)
class Rewrite:
    """code: with the selection between « and »."""

    name: str
    instruction: str
    language: str
    code: str
    tests: str

    @property
    def request(self) -> EditRequest:
        start, end = self.code.index("«"), self.code.index("»") - 1
        text = self.code.replace("«", "").replace("»", "")
        language = self.language if get(self.language) is not None else None
        path = f"{self.name}.{LANGUAGES[self.language][0]}"
        return EditRequest(text, start, end, self.instruction, language=language, path=path)


@dataclass(frozen=True)
class Outcome:
    """passes: whether the tests pass with the text of the result, shown or not."""

    name: str
    result: EditResult
    passes: bool


def read_rewrites(file: Path = FILE) -> list[Rewrite]:
    return [Rewrite(**match.groupdict()) for match in SECTION.finditer(file.read_text("utf-8"))]


def is_runnable(language: str) -> bool:
    return all(shutil.which(program) for program in LANGUAGES[language][1])


def passes(code: str, tests: str, language: str = "python") -> bool:
    """Whether the tests run without an error after the code."""
    ending, _, commands = LANGUAGES[language]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"rewritten.{ending}"
        file.write_text(f"{code}\n{tests}", "utf-8")
        return all(_runs(command.format(file.name).split(), folder, language) for command in commands)


def _runs(command: list[str], folder: str, language: str) -> bool:
    def limit() -> None:
        if language != "javascript":  # node reserves far more memory than it uses
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    try:
        run = subprocess.run(
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"]},
            timeout=SECONDS,
            preexec_fn=limit,
            capture_output=True,
        )
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def attempt(rewriter: Rewriter, rewrite: Rewrite) -> Outcome:
    request = rewrite.request
    result = rewriter.rewrite(request)
    changed = request.text[: result.start] + result.text + request.text[result.end :]
    return Outcome(rewrite.name, result, passes(changed, rewrite.tests, rewrite.language))


def row(model: str, outcomes: list[Outcome]) -> tuple[list[str], dict[str, Any]]:
    """The cells of HEADER, and the same for programs."""
    shown = [one for one in outcomes if one.result.shown]
    passed = sum(one.passes and one.result.shown for one in outcomes)
    seconds = Spread.of([one.result.timings_ms["total"] / 1000 for one in outcomes])
    figures = {
        "rewrites": len(outcomes),
        "pass": passed,
        "shown": len(shown),
        "s": seconds,
        "failed": [one.name for one in outcomes if not (one.passes and one.result.shown)],
    }
    share = [f"{passed} of {len(outcomes)}", f"{len(shown)} of {len(outcomes)}"]
    of_shown = f"{100 * passed / len(shown):.0f} %" if shown else "–"
    return [model, *share, of_shown, str(seconds)], figures


@errors_to_exit_codes
def main(
    model: Annotated[list[str] | None, typer.Option(help="A model; repeatable.")] = None,
    only: Annotated[str, typer.Option(help="Only rewrites whose name contains this.")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every answer.")] = False,
    write: Annotated[str | None, typer.Option(metavar="NAME", help="Write the result to bench/results.")] = None,
) -> None:
    """Measure rewrites by instruction."""
    rewrites = [one for one in read_rewrites() if only in one.name and is_runnable(one.language)]
    rows, figures = [], {}
    for name in model or ["coder"]:
        rewriter = Rewriter(load_model(Settings(model=name)))
        outcomes = []
        for rewrite in rewrites:
            outcomes.append(outcome := attempt(rewriter, rewrite))
            verdict = "passes" if outcome.passes else "fails"
            print(f"{name}, {rewrite.name}: {verdict}, {outcome.result.reason or 'shown'}", flush=True)
            if verbose:
                print(outcome.result.text, flush=True)
        cells, figures[name] = row(name, outcomes)
        rows.append(cells)
    notes = [
        f"{len(rewrites)} rewrites of bench/edits/instructions.md, judged by running their tests. pass: of all, "
        "shown and right; s: median and quartiles of the whole request in seconds, with a prompt that was not cached.",
    ]
    report = Report("Rewrites by instruction", conditions(), HEADER, rows, notes, figures)
    report.show()
    if write:
        report.write(write)


if __name__ == "__main__":
    typer.run(main)

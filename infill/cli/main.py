"""`gesso`: the commands and their output. Results go to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from engine.errors import GessoError, InputError, UsageError
from infill import settings
from infill.cli import edit as cli_edit
from infill.cli import infill as cli_infill
from infill.cli import lint as cli_lint
from infill.cli import models as cli_models
from infill.cli import serve as cli_serve
from infill.cli import stats as cli_stats
from infill.cli import support as cli_support
from infill.cli.batch import Batch
from infill.cli.service import BATCH_ROWS, SERVICE_HELP, service_for
from infill.cli.support import FILLED, Commands, VisibleConsole, add_row, errors_to_exit_codes, say
from infill.printable import json_text, plain
from infill.surroundings import INTERRUPTED, interrupt_is_reported
from infill.version import installed_version

SOME_FAILED = 1
HELP = """Fill holes in code with a block-diffusion model on this machine. Your code never leaves it.

\b
gesso infill app.py --at 12:5 --watch   fill a hole and show each step
gesso infill --help                     all ways to name a hole
gesso edit --help                       rewrite code by an instruction
gesso batch IN.jsonl OUT.jsonl          fill many holes
gesso lint src                          find likely mistakes in code
gesso serve                             one model for all editors and tools
gesso doctor                            show what this machine can run
gesso stats                             statistics of your editor's suggestions

Exit codes: 0 filled, 1 nothing good enough to show, 2 usage error, 3 error in the model or the input.
"""
BATCH_HELP = """Fill many holes: JSON rows in, JSON rows out, in the same order.

\b
in   {"id": 1, "language": "python", "prefix": "x = ", "suffix": "\\n"}
out  {"id": 1, "text": "None", "shown": true, "reason": null,
     "confidence": 0.9, "steps": 4, "elapsed_ms": 80.1}

A row may also have "path" and "lines". "text" is the best candidate, even
if it is not good enough to show. An invalid row produces a row with
"error", and the exit code is 1. Stop with Ctrl-C; run the same command
again to resume.
"""

app = Commands(help=HELP, no_args_is_help=True)
app.command("infill", help=cli_infill.HELP)(cli_infill.infill)
app.command("edit", help=cli_edit.HELP)(cli_edit.edit)
app.command("lint", help=cli_lint.HELP)(cli_lint.lint)
app.command()(cli_stats.stats)
app.add_typer(cli_models.app, name="model")
app.add_typer(cli_serve.app, name="serve")


def main() -> None:
    """The entry point of `gesso`."""
    try:
        with cli_support.writing_output(writes_files=True):  # before any command: the help, and completion of shells
            app(prog_name="gesso")
    except (OSError, GessoError) as error:
        sys.exit(cli_support.report(error))


def _print_version(requested: bool) -> None:
    if requested:
        cli_support.write_out(f"gesso {installed_version()}\n")
        raise typer.Exit


@app.callback()
def gesso(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(help=BATCH_HELP)
@errors_to_exit_codes
def batch(
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="The rows to fill.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="The output; existing rows are kept.")],
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Rows per batch.")] = None,
    lines: Annotated[str | None, typer.Option(metavar="one|block|auto", help='For rows without "lines".')] = None,
    candidates: Annotated[int | None, typer.Option(metavar="N", help="Candidates per hole.")] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Maximum number of denoising steps.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Same seed, same text.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="pocket, 26b, a hub ID or a folder.")] = None,
    service: Annotated[bool | None, typer.Option("--service/--no-service", help=SERVICE_HELP)] = None,
) -> None:
    flags = {
        "batch_size": batch_size,
        "lines": lines,
        "candidates": candidates,
        "steps": steps,
        "seed": seed,
        "model": model,
    }
    resolved = cli_support.read_settings(Path.cwd(), flags).settings
    work = Batch(source, target, resolved)
    if work.failed:
        say(f"Filling the failed rows of {target} again: {len(work.failed)}.")
    if 0 < work.done < work.total:
        say(f"{target} has {work.done} of {work.total} rows; resuming.")
    if work.failed or work.done < work.total:
        try:
            _run_with_bar(work, resolved, service)
        except KeyboardInterrupt as error:
            say(f"Stopped with {work.done} of {work.total} rows done; run the same command again to resume.")
            interrupt_is_reported()
            raise typer.Exit(INTERRUPTED) from error
    raise typer.Exit(_batch_summary(work))


def _batch_summary(work: Batch) -> int:
    """Prints how many rows there are, and returns the exit code."""
    summary = f"{work.target} has all {work.total} rows"
    if work.unusable:
        summary += f"; {work.unusable} of them cannot be used, see their error"
    if work.failed:
        summary += f"; {len(work.failed)} of them failed, run the same command again to try them again"
    say(f"{summary}.")
    return SOME_FAILED if work.unusable or work.failed else FILLED


def _run_with_bar(work: Batch, resolved: settings.Settings, service: bool | None) -> None:
    client = service_for(resolved, service, "batch")
    completer = client or cli_support.with_retry(cli_support.load_completer(resolved), resolved)
    columns = (TextColumn("filling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = cli_support.errors_console()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("rows", total=work.total, completed=work.done)
        batch_size = max(BATCH_ROWS, resolved.batch_size) if client else None
        work.run(completer, lambda done: progress.update(task, completed=done), batch_size)


@app.command()
@errors_to_exit_codes
def config(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False) -> None:
    """Print every setting, its value and where it came from.

    Later sources override earlier ones: defaults, your own file, the project's gesso.toml (or [tool.gesso] in
    pyproject.toml) in this folder or above, variables such as GESSO_MODEL, flags.
    """
    resolved = cli_support.read_settings(Path.cwd())
    values = asdict(resolved.settings)
    if as_json:
        rows = {name: {"value": value, "from": resolved.origins[name]} for name, value in values.items()}
        cli_support.write_out(json_text(rows, indent=2))
        return
    others = (Column(heading, overflow="fold") for heading in ("value", "from", "meaning"))
    table = Table(Column("setting", no_wrap=True), *others, box=None, pad_edge=False)
    for name, value in values.items():
        shown = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        add_row(table, name, shown, resolved.origins[name], settings.HELP[name])
    VisibleConsole().print(table)
    say(f"Your own file is {settings.user_file()}{'' if settings.user_file().is_file() else ' (does not exist)'}.")
    for variable in resolved.unknown_variables:
        say(f"Ignoring unknown setting {variable}.")


@app.command()
@errors_to_exit_codes
def trust(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder; default: this one.")] = Path("."),
    list_: Annotated[bool, typer.Option("--list", help="Print the trusted folders.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Trust the folder no longer.")] = False,
) -> None:
    """Let the gesso.toml of a folder, and of folders below it, choose the model and the device.

    Without this, those settings of a project are ignored, since a project may be a stranger's.
    """
    if list_ and remove:
        raise UsageError("Options --list and --remove exclude each other; choose one.")
    trusted = settings.trust_list()
    if list_:
        cli_support.write_out("".join(f"{one}\n" for one in trusted.folders()))
    elif not remove:
        say(f"The settings of {trusted.add(folder)} are trusted now.")
    elif trusted.remove(folder):
        say(f"The settings of {folder.resolve()} are no longer trusted.")
    else:
        raise InputError(f"{folder.resolve()} is not in the list; `gesso trust --list` prints it.")


@app.command()
@errors_to_exit_codes
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False) -> None:
    """Show this machine's hardware, the models that fit its memory, and what to do next."""
    from infill.doctor import GIB, examine

    report = examine()
    if as_json:
        cli_support.write_out(report.to_json())
        return
    machine, console = report.machine, VisibleConsole(highlight=False)
    facts = Table(show_header=False, box=None, pad_edge=False)
    capability = f"{machine['capability']}, bfloat16 {'native' if machine['bfloat16'] else 'not native'}"
    add_row(facts, "processor", f"{machine['cpu']} ({machine['usable_cores']} cores, {capability})")
    add_row(facts, "memory", f"{_gib(machine['memory_available'])} free of {_gib(machine['memory_total'])}")
    for gpu in machine["gpus"]:
        free = gpu["trouble"] or f"{_gib(gpu['memory_available'])} free of {_gib(gpu['memory_total'])}"
        add_row(facts, "GPU", f"{gpu['name']} ({free})")
    add_row(facts, "runs on", f"{machine['device']}, {machine['dtype']} (torch {machine['torch']})")
    console.print(facts)
    models = Table("model", "type", "needs", "fits", "runs", "", box=None, pad_edge=False)
    for fit in report.models:
        need = f"{fit.bytes / GIB:.1f} GiB"
        add_row(models, fit.model, fit.dtype, need, _yes_or_no(fit.fits), _yes_or_no(fit.runs), fit.note)
    console.print("", models, "", sep="\n")
    for sentence in report.advice:
        console.print(plain(f"- {sentence}"), markup=False)


def _gib(count: int) -> str:
    return "unknown" if count >= sys.maxsize else f"{count / 2**30:.1f} GiB"


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"

"""`gesso model`: which models there are, fetching one, checking one, and where one lies."""

from __future__ import annotations

import functools
from enum import StrEnum
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from infill import model_store
from infill.cli import support as cli_support
from infill.cli.support import add_row, errors_to_exit_codes

app = typer.Typer(no_args_is_help=True, help="Models: list, fetch, check, quantize, find.")

NAME_HELP = "pocket, 26b, a hub id (owner/name) or a folder. Without it, the model of your settings."


@app.command("list")
@errors_to_exit_codes
def list_models() -> None:
    """List the models on this machine, and those that can be fetched by a short name."""
    table = Table("model", "size", "where", box=None, pad_edge=False)
    models = model_store.stored_models()
    for model in models:
        add_row(table, model.name, _size(model.bytes), f"{model.source}: {model.folder}")
    present = {model.name for model in models}
    for alias, repository in model_store.ALIASES.items():
        where = f"the same as {repository}" if repository in present else f"gesso model pull {alias}"
        add_row(table, alias, "", where)
    Console(soft_wrap=True).print(table)


@app.command()
@errors_to_exit_codes
def pull(name: str = typer.Argument(..., help="26b or a hub id (owner/name).")) -> None:
    """Fetch a model from the hub into the hub's cache. This is the only command that downloads anything.

    A fetch that was cut off goes on where it stopped. Prints the folder.
    """
    settings = cli_support.read_settings(Path.cwd()).settings
    folder = model_store.pull(name, settings.offline)
    cli_support.write_out(f"{folder}\n")
    cli_support.say(f"{name} is here; check it with `gesso model verify {name}`.")


@app.command()
@errors_to_exit_codes
def verify(name: str | None = typer.Argument(None, help=NAME_HELP)) -> None:
    """Read every byte of a model and say for each file whether it is whole. Exit code 3 where it is not."""
    folder = model_store.resolve(_named(name))
    from engine.checkpoints.verification import verify as check_files

    with cli_support.byte_progress() as progress:
        task = progress.add_task(f"reading {folder.name}", total=None)
        checks = check_files(folder, lambda done, total: progress.update(task, completed=done, total=total))
    console = Console(soft_wrap=True)
    for check in checks:
        verdict = "; ".join(check.problems) or "good"
        console.print(f"{check.file}  {_size(check.bytes)}  {verdict}", markup=False, highlight=False)
    if any(check.problems for check in checks):
        cli_support.say(f"The model in {folder} is damaged; see above for what to do.")
        raise typer.Exit(cli_support.TROUBLE)


class Few(StrEnum):
    """The formats of `quantize`; see `engine.checkpoints.quantizing`."""

    int4 = "int4"
    fp8 = "fp8"
    nvfp4 = "nvfp4"


@app.command()
@errors_to_exit_codes
def quantize(
    source: str = typer.Argument(..., help="The model to read, in bfloat16 or float32: 26b, a hub id or a folder."),
    target: Path = typer.Argument(..., metavar="DEST", help="The folder to write; new or empty."),
    kind: Few = typer.Option(..., "--format", help="int4: 4.5 bits a weight; fp8: 8; nvfp4: 4.5."),
) -> None:
    """Write a model in few bits, for a GPU with less memory. Needs little memory itself.

    A run that was cut off goes on where it stopped. Use the result with `--model DEST`. Of a mixture of experts, int4
    and nvfp4 are for the experts, and the other projections are in fp8.
    """
    folder = model_store.resolve(source)
    from engine.checkpoints.quantizing import quantize_folder

    with cli_support.byte_progress() as progress:
        task = progress.add_task(f"quantizing {folder.name}", total=None)
        report = functools.partial(_advance, progress, task)
        quantize_folder(folder, target, kind.value, report)
    size = sum(file.stat().st_size for file in target.iterdir())
    cli_support.write_out(f"{target}\n")
    cli_support.say(f"{target} has {_size(size)}; try it with `gesso infill … --model {target}`.")


def _advance(progress: Progress, task: TaskID, done: int, total: int) -> None:
    progress.update(task, completed=done, total=total)


@app.command()
@errors_to_exit_codes
def path(name: str | None = typer.Argument(None, help=NAME_HELP)) -> None:
    """Print the folder of a model that is on this machine."""
    cli_support.write_out(f"{model_store.resolve(_named(name))}\n")


def _named(name: str | None) -> str:
    return name or cli_support.read_settings(Path.cwd()).settings.model


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"

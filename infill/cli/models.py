"""`gesso model`: lists, downloads, verifies, quantizes and locates models."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer
from rich.table import Table

from infill import model_store
from infill.cli import support as cli_support
from infill.cli.support import VisibleConsole, add_row, errors_to_exit_codes
from infill.downloads import KNOWN, sha256
from infill.printable import plain

app = cli_support.Commands(no_args_is_help=True, help="List, download, verify, quantize and locate models.")

NAME_HELP = "pocket, coder, 26b, a hub ID (owner/name), a folder or a GGUF file. Default: the model of your settings."


@app.command("list")
@errors_to_exit_codes
def list_models() -> None:
    """List the models on this machine and those you can download by a short name."""
    table = Table("model", "size", "where", box=None, pad_edge=False)
    models = model_store.stored_models()
    for model in models:
        add_row(table, model.name, _size(model.bytes), f"{model.source}: {model.folder}")
    present = {model.name for model in models}
    for known in KNOWN.values():
        if known.name not in present:
            where = f"gesso model pull {known.name}: {known.about} ({known.license})"
            add_row(table, known.name, _size(known.bytes), where)
    for masked in model_store.MASKED_MODELS:
        if masked.repository not in present:
            where = f"gesso model pull {masked.repository}, or its folder: {masked.about} ({masked.license})"
            add_row(table, masked.repository, _size(masked.bytes), where)
    for alias, repository in model_store.ALIASES.items():
        where = f"same as {repository}" if repository in present else f"gesso model pull {alias}"
        add_row(table, alias, "", where)
    VisibleConsole(soft_wrap=True).print(table)


@app.command()
@errors_to_exit_codes
def pull(name: str = typer.Argument(..., help="coder, coder-1.5b, 26b or a hub ID (owner/name).")) -> None:
    """Download a model and print its folder or file.

    No other command downloads anything. An interrupted download resumes.
    """
    settings = cli_support.read_settings(Path.cwd()).settings
    if (known := KNOWN.get(name)) is not None:
        cli_support.say(f"{known.repository}, {_size(known.bytes)}, license {known.license}")
    with cli_support.byte_progress() as progress:
        task = progress.add_task(f"downloading {name}", total=None)
        folder = model_store.pull(
            name, settings.offline, lambda done, total: progress.update(task, completed=done, total=total)
        )
    cli_support.write_out(f"{folder}\n")
    cli_support.say(f"Downloaded {name}; check it with `gesso model verify {name}`.")


@app.command()
@errors_to_exit_codes
def verify(name: str | None = typer.Argument(None, help=NAME_HELP)) -> None:
    """Read every byte of a model and report each damaged file. The exit code is 3 if there is one."""
    folder = model_store.resolve(_name_or_default(name))
    if folder.is_file():
        _verify_file(_name_or_default(name), folder)
        return
    from engine.checkpoints.verification import verify as check_files

    with cli_support.byte_progress() as progress:
        task = progress.add_task(f"reading {folder.name}", total=None)
        checks = check_files(folder, lambda done, total: progress.update(task, completed=done, total=total))
    console = VisibleConsole(soft_wrap=True)
    for check in checks:
        verdict = "; ".join(check.problems) or "good"
        console.print(plain(f"{check.file}  {_size(check.bytes)}  {verdict}"), markup=False, highlight=False)
    if any(check.problems for check in checks):
        cli_support.say(f"The model in {folder} is damaged; the lines above say what to do.")
        raise typer.Exit(cli_support.TROUBLE)


def _verify_file(name: str, file: Path) -> None:
    """A GGUF file against its published checksum if that is known, else its header against its size."""
    known = KNOWN.get(name)
    if known is not None and sha256(file) != known.sha256:
        cli_support.say(f"The file {file} is damaged; remove it and run `gesso model pull {name}`.")
        raise typer.Exit(cli_support.TROUBLE)
    from engine.checkpoints.gguf import GgufFile

    GgufFile(file)
    cli_support.write_out(plain(f"{file.name}  {_size(file.stat().st_size)}  good") + "\n")


class QuantizedFormat(StrEnum):
    """The formats of `quantize`; see `engine.checkpoints.quantizing`."""

    int4 = "int4"
    fp8 = "fp8"
    nvfp4 = "nvfp4"


@app.command()
@errors_to_exit_codes
def quantize(
    source: str = typer.Argument(..., help="The model to read, in bfloat16 or float32: 26b, a hub ID or a folder."),
    target: Path = typer.Argument(..., metavar="DEST", help="The folder to write; new or empty."),
    format: QuantizedFormat = typer.Option(
        ..., "--format", help="int4: 4.5 bits per weight; fp8: 8 bits; nvfp4: 4.5 bits."
    ),
) -> None:
    """Quantize a model so that it needs less GPU memory. The command itself needs little memory.

    An interrupted run resumes. Use the result with `--model DEST`. In a mixture-of-experts model, int4 and nvfp4 apply
    to the experts; the other projections are stored in fp8.
    """
    folder = model_store.resolve(model_store.absolute(source, Path()))
    from engine.checkpoints.quantizing import quantize_folder

    with cli_support.byte_progress() as progress:
        task = progress.add_task(f"quantizing {folder.name}", total=None)
        quantize_folder(
            folder, target, format.value, lambda done, total: progress.update(task, completed=done, total=total)
        )
    size = sum(file.stat().st_size for file in target.iterdir())
    cli_support.write_out(f"{target}\n")
    cli_support.say(f"Wrote {_size(size)}; try the model with `gesso infill … --model {target}`.")


@app.command()
@errors_to_exit_codes
def path(name: str | None = typer.Argument(None, help=NAME_HELP)) -> None:
    """Print the folder of a model on this machine."""
    cli_support.write_out(f"{model_store.resolve(_name_or_default(name))}\n")


def _name_or_default(name: str | None) -> str:
    return model_store.absolute(name, Path()) if name else cli_support.read_settings(Path.cwd()).settings.model


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"

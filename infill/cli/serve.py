"""`gesso serve`: the resident service in this terminal, and `status`, `stop` and `logs` of the one that runs.

Imports nothing slow: that waits until the lock is held.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from engine.errors import InputError, UsageError
from infill.backends.routes import read_routes
from infill.cli import support as cli_support
from infill.cli.support import FILLED, errors_to_exit_codes, say
from infill.service import client
from infill.service.location import Place, all_places, holder, place_at
from infill.service.process import IDLE_MINUTES, Network, ServiceOptions
from infill.service.process import serve as run_service
from infill.settings import user_file

NOT_RUNNING = 1
PORT = 8012
LOG_LINES = 100
HELP = """Keep a model loaded, and fill holes for every editor and tool.

\b
gesso serve                 until Ctrl-C, or 30 minutes without a request
gesso serve --port 8012     also on 127.0.0.1, for other programs
gesso serve status          what runs, exit code 1 if nothing does
gesso serve stop            end it
gesso serve logs            its last lines

It listens on a Unix socket that only you can open. One service runs on
a socket; a second one says so and ends.
"""
app: typer.Typer = typer.Typer(
    help=HELP,
    add_completion=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Socket = Annotated[Path | None, typer.Option("--socket", metavar="PATH", help="Where its socket is.")]


@app.callback()
@errors_to_exit_codes
def serve(
    context: typer.Context,
    socket: Socket = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Of the port; 127.0.0.1 unless told.")] = None,
    port: Annotated[int | None, typer.Option(metavar="N", min=1, max=65535, help="Listen on TCP too.")] = None,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The token to ask for on the port.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="The port's certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="The key of the certificate, PEM.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="pocket, 26b, a hub id or a folder.")] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="TYPE", help="auto, float32 or bfloat16.")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Most CPU threads.")] = None,
    idle_minutes: Annotated[
        float, typer.Option(metavar="N", min=0, max=1e6, help="End after this long without a request; 0: never.")
    ] = IDLE_MINUTES,
    batch: Annotated[int | None, typer.Option(metavar="N", min=1, max=256, help="Most canvases of a step.")] = None,
) -> None:
    if context.invoked_subcommand is not None:
        context.obj = socket
        return
    flags = {"model": model, "device": device, "dtype": dtype, "threads": threads}
    settings = cli_support.read_settings(Path.cwd(), flags).settings
    network = _network(host, port, token_file, tls_cert, tls_key)
    place = place_at(socket)
    routes = read_routes(user_file())
    if not run_service(ServiceOptions(place, settings, network, idle_minutes, batch, routes)):
        say(f"A service runs already at {place.socket}, process {holder(place)}; this one is not needed.")


@app.command()
@errors_to_exit_codes
def status(
    context: typer.Context,
    socket: Socket = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each.")] = False,
) -> None:
    """What runs. Exit code 0 where a service answers, else 1."""
    places = _places(context, socket)
    found = [one for place in places if (one := client.find(place)) is not None]
    for one in found:
        _print_health(one, as_json)
    if not found:
        cli_support.write_out("{}\n") if as_json else None
        hung = [process for place in places if (process := holder(place)) is not None]
        say(f"No service runs at {places[0].socket}." if not hung else f"Process {hung[0]} does not answer.")
        raise typer.Exit(NOT_RUNNING)


def _print_health(found: client.Client, as_json: bool) -> None:
    health, socket = found.health(), found.place.socket
    if as_json:
        cli_support.write_out(json.dumps(asdict(health) | {"socket": str(socket)}) + "\n")
        return
    state = {"ok": "ready", "loading": f"loading, {health.done} of {health.total} bytes"}.get(health.status, "failed")
    text = f"model {health.model} ({state}), process {health.pid}, {health.pending} requests, {socket}\n"
    cli_support.write_out(text)
    if health.message:
        say(health.message)


@app.command()
@errors_to_exit_codes
def stop(context: typer.Context, socket: Socket = None) -> None:
    """End the service, and wait until it is gone."""
    places = _places(context, socket)
    ended = [place for place in places if client.stop(place)]
    say("The service has ended." if ended else f"No service runs at {places[0].socket}.")
    raise typer.Exit(FILLED)


@app.command()
@errors_to_exit_codes
def logs(
    context: typer.Context,
    socket: Socket = None,
    lines: Annotated[int, typer.Option(metavar="N", min=1, help="How many.")] = LOG_LINES,
) -> None:
    """The last lines of its log. Code is never in it."""
    place = _places(context, socket)[0]
    try:
        text = place.log.read_text("utf-8", "replace")
    except OSError as reason:
        raise InputError(f"There is no log at {place.log}; start a service with `gesso serve`.") from reason
    cli_support.write_out("".join(text.splitlines(keepends=True)[-lines:]))


def _places(context: typer.Context, socket: Path | None) -> list[Place]:
    """The one that was named, else all of this user, the usual one first."""
    named = socket if socket is not None else context.obj
    return [place_at(named)] if named is not None else all_places()


def _network(
    host: str | None, port: int | None, token_file: Path | None, certificate: Path | None, key: Path | None
) -> Network | None:
    if host is None and port is None:
        if token_file or certificate or key:
            raise UsageError("--token-file, --tls-cert and --tls-key belong to a port; give --port.")
        return None
    token = _token(token_file) if token_file is not None else None
    network = Network(port or PORT, host or "127.0.0.1", token, certificate, key)
    network.check()
    return network


def _token(file: Path) -> str:
    try:
        token = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as reason:
        raise UsageError(f"The token file {file} cannot be read as plain text; check the path.") from reason
    return token

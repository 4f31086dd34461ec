"""`gesso serve`: runs the service in this terminal; `status`, `stop` and `logs` of a running one.

Imports nothing slow before the lock is held.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from engine.errors import GessoError, InputError, UsageError
from engine.files import read_small_file
from infill.backends.routes import read_routes
from infill.cli import support as cli_support
from infill.cli.support import FILLED, errors_to_exit_codes, say
from infill.connection import LOOPBACK
from infill.printable import json_text, printable
from infill.service.client import ServiceClient
from infill.service.exchange import Health
from infill.service.location import (
    ServiceLocation,
    all_locations,
    check_private,
    location_at,
    lock_holder,
    open_private,
)
from infill.service.process import IDLE_MINUTES, Network, ServiceOptions
from infill.service.process import serve as run_service
from infill.service.start import stop_service
from infill.settings import user_file
from infill.surroundings import INTERRUPTED, end

NOT_RUNNING = 1
PORT = 8012
LOG_LINES = 100
TOKEN_BYTES = 64 << 10
HELP = """Keep a model loaded, and fill holes for every editor and tool.

\b
gesso serve                 until Ctrl-C, or 30 minutes without a request
gesso serve --port 8012     also on 127.0.0.1, for other programs
gesso serve status          running services, exit code 1 if none
gesso serve stop            end them
gesso serve logs            the last lines of the log

It listens on a Unix socket that only you can open. If a service already
runs on the socket, a second one says so and exits, with exit code 3 if
that service has another model, or not the port with these options.
"""
app = cli_support.Commands(help=HELP, invoke_without_command=True)
Socket = Annotated[Path | None, typer.Option("--socket", metavar="PATH", help="The path of its socket.")]


@app.callback()
@errors_to_exit_codes
def serve(
    context: typer.Context,
    socket: Socket = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help=f"Address; {LOOPBACK} by default.")] = None,
    port: Annotated[int | None, typer.Option(metavar="N", min=1, max=65535, help="Listen on TCP too.")] = None,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The token that the port requires.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="The port's certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate's key (PEM).")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="pocket, 26b, a hub ID or a folder.")] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="TYPE", help="auto, float32 or bfloat16.")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Maximum number of CPU threads.")] = None,
    retry_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Fills a hole again if the checks refuse the model's text.")
    ] = None,
    idle_minutes: Annotated[
        float, typer.Option(metavar="N", min=0, max=1e6, help="End after this time without a request; 0: never.")
    ] = IDLE_MINUTES,
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=256, help="Maximum number of canvases per step.")
    ] = None,
) -> None:
    if context.invoked_subcommand is not None:
        context.obj = socket
        return
    flags = {"model": model, "device": device, "dtype": dtype, "threads": threads, "retry_model": retry_model}
    settings = cli_support.read_settings(Path.cwd(), flags).settings
    network = _network(host, port, token_file, tls_cert, tls_key)
    location = location_at(socket)
    routes = read_routes(user_file())
    options = ServiceOptions(location, settings, network, idle_minutes, batch, routes)
    try:
        has_run = run_service(options, report=lambda sentence: None if _prints_to(location.log) else say(sentence))
    except KeyboardInterrupt:
        say("Stopped.")
        end(INTERRUPTED)
    if has_run:
        end(FILLED)
    _report_running(options)


def _prints_to(log: Path) -> bool:
    """Whether standard error is the log, which has its own messages, as in a service that a client started."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(2), os.stat(log))
    return False


def _report_running(options: ServiceOptions) -> None:
    """Raises GessoError if the running service does not have the port or the model of the options."""
    location, network = options.location, options.network
    health = ServiceClient(location).find()
    running = f"A service already runs at {location.socket}, process {lock_holder(location)}"
    if network is not None and (health is None or health.network != network.fingerprint()):
        raise GessoError(
            f"{running}, so port {network.port} is not opened; run `gesso serve stop` and then this command again."
        )
    if health is not None and health.model != options.settings.model:
        raise GessoError(f"{running}, with the model {health.model}; run `gesso serve stop` and this command again.")
    port = f", and listens on port {network.port}" if network is not None else ""
    say(f"{running}{port}; use it, or stop it first.")


@app.command()
@errors_to_exit_codes
def status(
    context: typer.Context,
    socket: Socket = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per service.")] = False,
) -> None:
    """Show running services. Exit code 0 if a service answers, else 1."""
    locations = _locations(context, socket)
    found = [(one.socket, health) for one in locations if (health := ServiceClient(one).find()) is not None]
    for path, health in found:
        _print_health(path, health, as_json)
    if not found:
        if as_json:
            cli_support.write_out("{}\n")
        hung = [process for one in locations if (process := lock_holder(one)) is not None]
        say(
            f"Process {hung[0]} does not answer; end it with `gesso serve stop`."
            if hung
            else f"No service runs at {locations[0].socket}."
        )
        raise typer.Exit(NOT_RUNNING)


def _print_health(socket: Path, health: Health, as_json: bool) -> None:
    if as_json:
        cli_support.write_out(json_text(asdict(health) | {"socket": str(socket)}))
        return
    state = {"ok": "ready", "loading": f"loading, {health.done} of {health.total} bytes"}.get(health.status, "failed")
    text = f"model {health.model} ({state}), process {health.pid}, {health.pending} requests, {socket}\n"
    cli_support.write_out(printable(text))
    if health.message:
        say(health.message)


@app.command()
@errors_to_exit_codes
def stop(context: typer.Context, socket: Socket = None) -> None:
    """End the service, and wait until it is gone."""
    locations = _locations(context, socket)
    ended = [one for one in locations if stop_service(one)]
    say("The service has ended." if ended else f"No service runs at {locations[0].socket}.")
    raise typer.Exit(FILLED)


@app.command()
@errors_to_exit_codes
def logs(
    context: typer.Context,
    socket: Socket = None,
    lines: Annotated[int, typer.Option(metavar="N", min=1, help="Number of lines.")] = LOG_LINES,
) -> None:
    """Print the last lines of the log, which never contains code."""
    location = _locations(context, socket)[0]
    try:
        check_private(location.socket.parent)
        with open(open_private(location.log, os.O_RDONLY), encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError as reason:
        raise InputError(f"There is no log at {location.log}; start a service with `gesso serve`.") from reason
    cli_support.write_out(printable("".join(text.splitlines(keepends=True)[-lines:])))


def _locations(context: typer.Context, socket: Path | None) -> list[ServiceLocation]:
    """The location of --socket, else all of this user's, the default first."""
    named = socket if socket is not None else context.obj
    return [location_at(named)] if named is not None else all_locations()


def _network(
    host: str | None, port: int | None, token_file: Path | None, certificate: Path | None, key: Path | None
) -> Network | None:
    if host is None and port is None:
        if token_file or certificate or key:
            raise UsageError("--token-file, --tls-cert and --tls-key belong to a port; give --port.")
        return None
    token = _token(token_file) if token_file is not None else None
    network = Network(port or PORT, host or LOOPBACK, token, certificate, key)
    network.check()
    return network


def _token(file: Path) -> str:
    """The token in a file, or in a pipe that the shell made, as `<(command)`."""
    try:
        if file.parent == Path("/dev/fd"):
            with file.open("rb") as stream:
                content = stream.read(TOKEN_BYTES)
        else:
            content = read_small_file(file, TOKEN_BYTES)
        return content.decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as reason:
        raise UsageError(f"The token file {file} cannot be read as plain text; check the path.") from reason

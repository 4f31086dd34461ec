"""`gesso-lsp`: the language server on stdin and stdout, or on a local port for debugging."""

from __future__ import annotations

import argparse
import logging
import sys

from engine.errors import UsageError
from infill.printable import PrintableFormatter
from infill.version import installed_version

SWITCH_S = 0.001  # longest time that the parser thread blocks the event loop; Python's default is 0.005


def main() -> None:
    """Runs the server until its client disconnects."""
    parser = argparse.ArgumentParser(prog="gesso-lsp", description="Gesso's language server, over stdin and stdout.")
    parser.add_argument("--tcp", type=int, metavar="PORT", help="serve one client on this port of 127.0.0.1 instead")
    levels = ("error", "warning", "info", "debug")
    parser.add_argument("--log", choices=levels, default="warning", help="least level of messages on stderr")
    parser.add_argument("--stdio", action="store_true", help="communicate over stdin and stdout (the default)")
    parser.add_argument("--version", action="version", version=f"gesso-lsp {installed_version()}")
    arguments = parser.parse_args()
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter(form))
    logging.basicConfig(handlers=[handler], level=arguments.log.upper())
    sys.setswitchinterval(SWITCH_S)
    from lsp.server import create_server

    server = create_server()
    if arguments.tcp is None:
        server.serve_stdio()
        return
    from lsp.tcp import TcpServer

    try:
        sys.exit(TcpServer(server).run(arguments.tcp))
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

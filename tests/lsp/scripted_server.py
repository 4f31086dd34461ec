"""A language server with a scripted service of its own and a small file as the coder, which soon lints."""

import os
import sys
import tempfile
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from infill.service import start  # noqa: E402
from infill.service.location import all_locations  # noqa: E402
from infill.service.start import stop_service  # noqa: E402
from tests.lsp import small_coder  # noqa: E402

small_coder.install()
start.GESSO = small_coder.COMMAND

from lsp import diagnostics, session  # noqa: E402
from lsp.__main__ import main  # noqa: E402
from lsp.engine import AsyncServiceClient  # noqa: E402
from tests.infill.service.scripted_service import COMMAND  # noqa: E402


def run() -> None:
    diagnostics.PAUSE_S = 0.1
    with tempfile.TemporaryDirectory(prefix="gesso-test-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        try:
            main()
        finally:
            for location in all_locations():
                stop_service(location)


if __name__ == "__main__":
    session.AsyncServiceClient = partial(AsyncServiceClient, command=COMMAND)  # type: ignore[misc, assignment]
    run()

"""A language server whose engine is the scripted worker, and that waits less for a pause in typing."""

import sys
from functools import partial
from pathlib import Path

from lsp import diagnostics, session
from lsp.__main__ import main
from lsp.engine_process import EngineProcess

WORKER = Path(__file__).parents[1] / "infill" / "scripted_worker.py"

if __name__ == "__main__":
    session.EngineProcess = partial(EngineProcess, command=(sys.executable, str(WORKER)))  # type: ignore[misc,assignment]
    diagnostics.PAUSE_S = 0.1
    main()

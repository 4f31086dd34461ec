"""A language server whose engine is the scripted worker, and that waits less for a pause in typing."""

import sys
from pathlib import Path

from infill.settings import Settings
from lsp import diagnostics, session
from lsp.__main__ import main
from lsp.engine_process import EngineProcess

WORKER = Path(__file__).parents[1] / "infill" / "service" / "scripted_worker.py"


class ScriptedEngine(EngineProcess):
    def __init__(self, on_state: object) -> None:
        super().__init__(on_state, (sys.executable, str(WORKER)))  # type: ignore[arg-type]

    async def start(self, settings: Settings, shared: bool = False) -> None:
        await super().start(settings, shared=False)


if __name__ == "__main__":
    session.EngineProcess = ScriptedEngine  # type: ignore[misc]
    diagnostics.PAUSE_S = 0.1
    main()

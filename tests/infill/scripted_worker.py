"""A worker process whose model is a script: what it does is said by the model's name and by the request's text."""

import os
import sys
import time
import types
from typing import Any

from engine.errors import InputError, ModelError, Stop, leave_if
from infill.request import InfillRequest, InfillResult
from infill.settings import Settings
from infill.worker import main


class Completer:
    """Stands where `infill.completion.Completer` does, so that no model's libraries are imported."""

    def __init__(self) -> None:
        self.begun = 0

    @staticmethod
    def load(settings: Settings, on_progress: Any) -> "Completer":
        if settings.model == "dying":
            print("last words", file=sys.stderr)
            os._exit(3)
        if settings.model == "absent":
            raise ModelError("There is no such model; choose another.")
        print("loading, says a library")
        on_progress(50, 100)
        if settings.model == "endless":
            time.sleep(600)
        on_progress(100, 100)
        return Completer()

    def complete(self, request: InfillRequest, stop: Stop) -> InfillResult:
        """`steps` of the result is how many requests were begun until now."""
        self.begun += 1
        if request.text == "print":
            print("a stray line")
            os.write(1, b"\x00\x01\x02\x03 stray bytes\n")
            os.system("echo and a child of ours")
        elif request.text == "endless":
            while True:
                leave_if(stop)
                time.sleep(0.002)
        elif request.text == "input":
            raise InputError("The request is no good; ask otherwise.")
        elif request.text == "fault":
            raise KeyError("secret = 'of the user'")
        elif request.text == "die":
            os.abort()
        return InfillResult((), self.begun, len(request.text), 0, 0, 0, {"total": 0.0}, "scripted", request.seed)


if __name__ == "__main__":
    module: Any = types.ModuleType("infill.completion")
    module.Completer = Completer
    sys.modules["infill.completion"] = module
    main()

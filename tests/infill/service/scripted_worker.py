"""A worker process whose model is a script: what it does is said by the model's name and by the request's text."""

import json
import os
import re
import sys
import time
import types
from dataclasses import replace
from typing import Any

from engine.errors import InputError, ModelError, Stop, leave_if
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult
from infill.service.worker import main
from infill.settings import Settings


class LoadedModel:
    """Stands where `infill.complete.loaded_model.LoadedModel` does, so that no model's libraries are imported."""

    @staticmethod
    def load(settings: Settings, on_progress: Any) -> None:
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


class Completer:
    """Stands where `infill.complete.completion.Completer` does."""

    def __init__(self, model: None, settings: Settings) -> None:
        self.begun, self.model = 0, settings.model

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


WRONG = {"wrnog": ("wrong-name", "wrong"), "plsu": ("misspelled", "plus"), "plsUm": ("style-naming", "pls_um")}


class Linter:
    """Stands where `infill.lint.linter.Linter` does. The words of WRONG are wrong, with digits behind them, too.

    The file that SCRIPTED_LINT_LOG names gets a line for each request that is begun.
    """

    def __init__(self, completer: Completer) -> None:
        if completer.model == "broken lint":
            raise ModelError("The bars cannot be read; fetch them again.")
        self.completer = completer

    @property
    def unasked(self) -> bool:
        return self.completer.model != "no lint"

    def lint(self, request: LintRequest, stop: Stop) -> list[Finding]:
        if path := os.environ.get("SCRIPTED_LINT_LOG"):
            asked = [request.text[start:end] for start, end in request.ranges]
            with open(path, "a") as file:
                off, on = sorted(request.off), sorted(request.on)
                print(json.dumps({"path": request.path, "asked": asked, "off": off, "on": on}), file=file)
        if request.explain and "mute" in request.text:
            raise InputError("The model is mute; choose another.")
        if request.explain:
            return [replace(one, explanation=f"Since `{one.replacement}` it is.") for one in request.findings]
        found = []
        for start, end in request.ranges or ((0, len(request.text)),):
            while "endless" in request.text[start:end]:
                leave_if(stop)
                time.sleep(0.002)
            if "input" in request.text[start:end]:
                raise InputError("The request is no good; ask otherwise.")
            for match in re.compile("|".join(WRONG)).finditer(request.text, start, end):
                code, replacement = WRONG[match[0]]
                if code.startswith("style-") and (code not in request.on or "plsUm" in request.text[: match.start()]):
                    continue
                if code not in request.off and "gesso: ignore" not in request.text[match.end() :].split("\n")[0]:
                    message = f"`{match[0]}` looks wrong."
                    found.append(Finding(match.start(), match.end(), code, message, replacement, 5.0))
        return found


if __name__ == "__main__":
    for name, stands in (
        ("infill.complete.completion", Completer),
        ("infill.complete.loaded_model", LoadedModel),
        ("infill.lint.linter", Linter),
    ):
        module: Any = types.ModuleType(name)
        setattr(module, stands.__name__, stands)
        sys.modules[name] = module
    main()

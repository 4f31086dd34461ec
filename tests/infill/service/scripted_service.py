"""A service with a scripted engine: the model's name and the request's text say what it does. Takes the options of
`gesso serve`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from engine.errors import InputError  # noqa: E402
from infill.edit_request import EditRequest, EditResult  # noqa: E402
from infill.engine_protocol import EngineRequest, EngineState, RequestCounts  # noqa: E402
from infill.findings import Finding, LintRequest  # noqa: E402
from infill.request import InfillRequest, InfillResult, OnStep, Piece, StepView  # noqa: E402
from infill.service.location import location_at  # noqa: E402
from infill.service.process import ServiceOptions, serve  # noqa: E402
from infill.settings import Settings  # noqa: E402
from tests.gate import wait_at_gate, wait_at_gate_async  # noqa: E402

COMMAND = (sys.executable, str(Path(__file__).resolve()))
IDLE_MINUTES = 2.0  # so that none is left long after a test that was killed
MISTAKES = {"wrnog": ("wrong-name", "wrong"), "plsu": ("misspelled", "plus"), "plsUm": ("style-naming", "pls_um")}


class ScriptedEngine:
    """The words of MISTAKES are findings, also with digits behind them.

    The file that SCRIPTED_LINT_LOG names gets a line for each lint request. What is slow waits at the test's gate.
    """

    def __init__(self, model: str) -> None:
        self._state, self._is_seen = EngineState("loading", model), threading.Event()
        self.counts, self.pending, self.usage = RequestCounts(), 0, None
        self.begun = 0

    @property
    def state(self) -> EngineState:
        if self._state.done:
            self._is_seen.set()
        return self._state

    def load(self) -> None:
        """Ends once a client has seen the progress."""
        model = self._state.model
        self._state = EngineState("loading", model, 50, 100)
        if model == "endless":
            time.sleep(60 * IDLE_MINUTES)
            os._exit(1)
        if model == "slow":
            wait_at_gate()
        self._is_seen.wait(60 * IDLE_MINUTES)
        if model == "absent":
            self._state = EngineState("failed", model, message="There is no such model; choose another.")
        else:
            lints = model != "no lint"
            self._state = EngineState("ready", model, can_lint=lints, lints=lints)

    def close(self) -> None:
        pass

    async def maintain(self) -> None:
        pass

    def check(self, request: EngineRequest[Any]) -> None:
        pass

    def tokens(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def text(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))

    async def complete(self, request: EngineRequest[InfillRequest], on_step: OnStep | None = None) -> InfillResult:
        """`steps` of the result is the number of requests begun so far."""
        self.begun += 1
        text = request.request.text
        if text == "print":
            print("a stray line", flush=True)
        elif text == "endless":
            await self._forever()
        elif text == "input":
            raise InputError("The request is no good; ask otherwise.")
        elif text == "die":
            os.abort()
        return InfillResult((), self.begun, len(text), 0, 0, 0, {"total": 0.0}, "scripted", 0)

    async def edit(self, request: EngineRequest[EditRequest], on_step: OnStep | None = None) -> EditResult:
        """The new text is the instruction. Its first line is sent ahead."""
        wanted = request.request
        if on_step is not None:
            first = wanted.instruction.split("\n")[0]
            on_step(StepView(1, 2, (Piece("", "known"), Piece(first, "settled"), Piece("", "known"))))
        if wanted.instruction == "refuse":
            return EditResult(wanted.start, wanted.end, "", False, "the answer is empty", (), 0, 0, {}, "scripted")
        if wanted.instruction == "slow":
            await wait_at_gate_async()
        return EditResult(wanted.start, wanted.end, wanted.instruction, True, None, (), 0, 0, {}, "scripted")

    async def lint(self, request: EngineRequest[LintRequest]) -> tuple[Finding, ...]:
        wanted = request.request
        if path := os.environ.get("SCRIPTED_LINT_LOG"):
            asked = [wanted.text[start:end] for start, end in wanted.ranges]
            with open(path, "a") as file:
                off, on = sorted(wanted.off), sorted(wanted.on)
                print(json.dumps({"path": wanted.path, "asked": asked, "off": off, "on": on}), file=file)
        if wanted.explain and "mute" in wanted.text:
            raise InputError("The model is mute; choose another.")
        if wanted.explain:
            return tuple(replace(one, explanation=f"Since `{one.replacement}` it is.") for one in wanted.findings)
        found: list[Finding] = []
        for start, end in wanted.ranges or ((0, len(wanted.text)),):
            if "endless" in wanted.text[start:end]:
                await self._forever()
            if "input" in wanted.text[start:end]:
                raise InputError("The request is no good; ask otherwise.")
            found += _findings(wanted, start, end)
        return tuple(found)

    async def read_ahead(self, request: EngineRequest[InfillRequest]) -> int:
        """The file that SCRIPTED_READ_LOG names gets a line for each call."""
        if path := os.environ.get("SCRIPTED_READ_LOG"):
            (hole,) = request.request.holes
            with open(path, "a") as file:
                print(json.dumps({"before": request.request.text[: hole.start]}), file=file)
        return len(request.request.text)

    async def _forever(self) -> None:
        self.pending += 1
        try:
            await asyncio.sleep(600)
        finally:
            self.pending -= 1


def _findings(request: LintRequest, start: int, end: int) -> list[Finding]:
    found = []
    for match in re.compile("|".join(MISTAKES)).finditer(request.text, start, end):
        code, replacement = MISTAKES[match[0]]
        is_repeated = match[0] == "plsUm" and "plsUm" in request.text[: match.start()]
        if code in request.off or (code.startswith("style-") and (code not in request.on or is_repeated)):
            continue
        if "gesso: ignore" not in request.text[match.end() :].split("\n")[0]:
            message = f"`{match[0]}` looks wrong."
            found.append(Finding(match.start(), match.end(), code, message, replacement, 5.0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path)
    parser.add_argument("--model", default="pocket")
    options, _ = parser.parse_known_args()
    if options.model == "dying":
        print("last words", flush=True)
        os._exit(3)
    settings = Settings(model=options.model)
    service = ServiceOptions(location_at(options.socket), settings, idle_minutes=IDLE_MINUTES)
    serve(service, lambda _: ScriptedEngine(options.model))


if __name__ == "__main__":
    main()

"""A model with a smaller one as its fallback, which answers while the model loads or is out of memory.

The GPU's free memory is watched: if other programs need it, first the cached prompts are dropped, then the model is
unloaded, and it is loaded again once there is enough. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from infill.edit_request import EditRequest, EditResult
from infill.engine_protocol import Engine, EngineRequest, EngineState, NotReady, RequestCounts, Usage
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult, OnStep

logger = logging.getLogger(__name__)
WATCH_S = 10.0  # between two checks of the free memory
LOW_BYTES = 1 << 30  # free memory below which this program makes room
CHECKS = 3  # in a row before the model is unloaded or loaded: a load costs more than a short shortage
MARGIN = 1.25  # of the model's weights that must be free before it is loaded again
Action = Literal["none", "forget", "unload", "load"]


@dataclass
class MemoryWatch:
    """Decides what to do from repeated checks of the free memory. weight_bytes: of the model, 0 while unknown."""

    weight_bytes: int = 0
    low_checks: int = 0
    high_checks: int = 0

    def check(self, free: int, is_loaded: bool) -> Action:
        """free: bytes. is_loaded: whether the model is in memory."""
        if is_loaded:
            self.high_checks = 0
            self.low_checks = self.low_checks + 1 if free < LOW_BYTES else 0
            if self.low_checks >= CHECKS:
                self.low_checks = 0
                return "unload"
            return "forget" if self.low_checks else "none"
        enough = free > LOW_BYTES + MARGIN * self.weight_bytes
        self.high_checks = self.high_checks + 1 if enough else 0
        if self.high_checks >= CHECKS:
            self.high_checks = 0
            return "load"
        return "none"


class UnloadableEngine(Engine, Protocol):
    """An engine whose model can leave the memory and come back."""

    weight_bytes: int

    def unload(self) -> None:
        """Frees the model's memory once pending requests are answered. Blocks until then."""
        ...

    def forget(self) -> None:
        """Drops cached prompts."""
        ...

    def free_memory(self) -> int | None:
        """Free bytes of the model's GPU; None if there is nothing to watch."""
        ...


class FallbackEngine:
    """The `Engine` of `main`, with `fallback` for requests that accept any model."""

    def __init__(self, main: UnloadableEngine, fallback: Engine) -> None:
        self.main, self.fallback = main, fallback
        self._memory = MemoryWatch()
        self._moving = threading.Lock()
        self._is_unloaded = False

    @property
    def state(self) -> EngineState:
        main, fallback = self.main.state, self.fallback.state
        if fallback.kind != "ready":
            return main
        if main.kind == "ready":
            return main
        return replace(main, fallback_model=fallback.model)

    @property
    def counts(self) -> RequestCounts:
        return self.main.counts

    @property
    def pending(self) -> int:
        return self.main.pending + self.fallback.pending

    @property
    def usage(self) -> Usage | None:
        return self.main.usage

    def load(self) -> None:
        """The fallback first, since it loads quickly."""
        self.fallback.load()
        self._load_main()

    def close(self) -> None:
        self.main.close()
        self.fallback.close()

    def check(self, request: EngineRequest[Any]) -> None:
        self._engine_for(request).check(request)

    def tokens(self, text: str) -> list[int]:
        try:
            return self.main.tokens(text)
        except NotReady:
            return self.fallback.tokens(text)

    def text(self, tokens: list[int]) -> str:
        try:
            return self.main.text(tokens)
        except NotReady:
            return self.fallback.text(tokens)

    async def complete(self, request: EngineRequest[InfillRequest], on_step: OnStep | None = None) -> InfillResult:
        return await self._engine_for(request).complete(request, on_step)

    async def edit(self, request: EngineRequest[EditRequest], on_step: OnStep | None = None) -> EditResult:
        """By the main model only, since a smaller one cannot follow instructions."""
        return await self.main.edit(request, on_step)

    async def lint(self, request: EngineRequest[LintRequest]) -> tuple[Finding, ...]:
        return await self._engine_for(request).lint(request)

    async def read_ahead(self, request: EngineRequest[InfillRequest]) -> int:
        return await self._engine_for(request).read_ahead(request)

    async def maintain(self) -> None:
        """Watches the free memory."""
        while True:
            await asyncio.sleep(WATCH_S)
            free = self.main.free_memory()
            if free is not None and self.main.state.kind != "failed":
                await self.react_to_memory(free)

    async def react_to_memory(self, free: int) -> Action:
        """Does what `free` bytes require, and returns it."""
        is_loaded = self.main.state.kind == "ready"
        if not is_loaded and not self._is_unloaded:
            return "none"  # it is loading
        action = self._memory.check(free, is_loaded)
        if action == "forget":
            self.main.forget()
        elif action == "unload":
            logger.warning("low memory: unloading model %s", self.main.state.model)
            await asyncio.to_thread(self._unload_main)
        elif action == "load":
            logger.warning("enough memory again: loading model %s", self.main.state.model)
            await asyncio.to_thread(self._load_main)
        return action

    def _engine_for(self, request: EngineRequest[Any]) -> Engine:
        falls_back = request.any_model and self.main.state.kind != "ready" and self.fallback.state.kind == "ready"
        return self.fallback if falls_back else self.main

    def _load_main(self) -> None:
        with self._moving:
            self.main.load()
            self._is_unloaded = False
            self._memory.weight_bytes = self.main.weight_bytes

    def _unload_main(self) -> None:
        with self._moving:
            self._is_unloaded = True
            self.main.unload()
            gc.collect()
            _empty_gpu_cache()


def _empty_gpu_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()

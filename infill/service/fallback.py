"""A service's engine with a smaller model below the one that is wanted: it answers while that loads or has no memory.

Memory is watched as long as both are there: where other programs take it, first the prompts that are kept go, then the
model, and it comes back once there is room again. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from infill.findings import Finding, LintRequest
from infill.request import InfillResult, OnStep
from infill.service.engine import Asked, ServiceEngine, State
from infill.settings import Settings

if TYPE_CHECKING:
    from infill.prompts.text_tokens import TextTokens

logger = logging.getLogger(__name__)
WATCH_S = 10.0  # between two looks at the memory
LOW = 1 << 30  # bytes that other programs find free, below which this one gives way
TIMES = 3  # looks in a row before the model is put out or brought back: a load of it costs more than a short squeeze
MARGIN = 1.25  # of what the model took, that must be free before it comes back
Step = Literal["stay", "shrink", "move out", "come back"]


@dataclass
class Squeeze:
    """From looks at the free memory to what is to be done. need: bytes that the model took, 0 while not known."""

    need: int = 0
    low: int = 0
    high: int = 0

    def look(self, free: int, is_in: bool) -> Step:
        """free: bytes. is_in: whether the model is loaded."""
        if is_in:
            self.high = 0
            self.low = self.low + 1 if free < LOW else 0
            if self.low >= TIMES:
                self.low = 0
                return "move out"
            return "shrink" if self.low else "stay"
        self.high = self.high + 1 if free > LOW + MARGIN * self.need else 0
        if self.high >= TIMES:
            self.high = 0
            return "come back"
        return "stay"


class LadderEngine(ServiceEngine):
    """free_memory: of the device that the model is on; None where it cannot run short of other programs' doing."""

    def __init__(self, settings: Settings, batch: int | None = None) -> None:
        super().__init__(settings, batch)
        self.below: ServiceEngine | None = None
        if settings.meanwhile and settings.meanwhile != settings.model:
            self.below = ServiceEngine(replace(settings, model=settings.meanwhile), batch)
        self.free_memory: Callable[[], int] | None = None
        self._squeeze = Squeeze()
        self._moving = threading.Lock()
        self._is_out = False

    def load(self) -> None:
        """First the smaller model, which is quick, then the one that is wanted."""
        if self.below is not None:
            self.below.load()
        self._load_own()

    def close(self) -> None:
        super().close()
        if self.below is not None:
            self.below.close()

    @property
    def told_state(self) -> State:
        below = self.below
        if below is None or below.state.kind != "ready":
            return self.state
        if self.state.kind == "ready":
            return self.state if self.state.can_lint else replace(self.state, lints=below.state.lints)
        return replace(self.state, meanwhile=below.settings.model, can_lint=below.state.can_lint)

    def check(self, asked: Asked | None = None) -> None:
        if self.below is not None and asked is not None and self._goes_below(asked):
            self.below.check()
        else:
            super().check()

    def _tokens(self) -> TextTokens:
        return super()._tokens() if self._model is not None or self.below is None else self.below._tokens()

    async def complete(self, asked: Asked, on_step: OnStep | None = None) -> InfillResult:
        if self.below is not None and self._goes_below(asked):
            return await self.below.complete(asked, on_step)
        return await super().complete(asked, on_step)

    async def lint(self, asked: Asked) -> tuple[Finding, ...]:
        """Where the model has no bars, the smaller one looks for those who take any, and the model explains."""
        below, request = self.below, asked.request
        assert isinstance(request, LintRequest)
        if below is not None and self._goes_below(asked):
            return await below.lint(asked)
        looks = asked.any_model and self.state.kind == "ready" and not self.state.can_lint and not request.findings
        if below is None or not looks or not below.state.can_lint:
            return await super().lint(asked)
        found = await below.lint(replace(asked, request=replace(request, explain=False)))
        if not request.explain or not found:
            return found
        return await super().lint(replace(asked, request=replace(request, findings=found)))

    async def watch_memory(self) -> None:
        """For as long as the service runs; only wakes up where memory can run short and a smaller model is there."""
        while self.below is not None:
            await asyncio.sleep(WATCH_S)
            if self.free_memory is not None and self.state.kind != "failed":
                await self.look_at_memory(self.free_memory())

    async def look_at_memory(self, free: int) -> Step:
        """Does what `free` bytes call for."""
        is_in = self.state.kind == "ready"
        if not is_in and not self._is_out:
            return "stay"  # it is loading
        step = self._squeeze.look(free, is_in)
        if step == "shrink":
            self.forget()
        elif step == "move out":
            logger.warning("the memory is short: model %s is put out", self.settings.model)
            await asyncio.to_thread(self._move_out)
        elif step == "come back":
            logger.warning("there is memory again: model %s is loaded", self.settings.model)
            await asyncio.to_thread(self._load_own)
        return step

    def _goes_below(self, asked: Asked) -> bool:
        below = self.below
        return asked.any_model and self.state.kind != "ready" and below is not None and below.state.kind == "ready"

    def _load_own(self) -> None:
        with self._moving:
            before = self.free_memory() if self.free_memory is not None else 0
            super().load()
            self._is_out = False
            if self._model is None:
                return
            device = self._model.denoiser.device
            if device.type == "cuda" and self.free_memory is None:
                self.free_memory = lambda: _free_for_others(device.index)
                model = self._model.denoiser.model
                self._squeeze.need = sum(weight.nbytes for weight in model.parameters())
            elif self.free_memory is not None:
                self._squeeze.need = max(self._squeeze.need, before - self.free_memory())

    def _move_out(self) -> None:
        with self._moving:
            self._is_out = True
            self.unload()
            gc.collect()
            _empty_device_cache()


def _empty_device_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _free_for_others(device: int | None) -> int:
    import torch

    return int(torch.cuda.mem_get_info(device)[0])

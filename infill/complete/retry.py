"""Fills a hole again with a second model if the checks refuse the text of the first.

Must not know models, nor how they fill holes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol

from engine.errors import Cancelled, GessoError, Stop
from infill.engine_protocol import infill_limit_s
from infill.request import HoleCompletion, InfillRequest, InfillResult, OnStep, StepView

logger = logging.getLogger(__name__)
MIN_LEFT_MS = 1.0  # least deadline of a request


class Pipeline(Protocol):
    """The part of a pipeline that a retry uses."""

    def complete(
        self, request: InfillRequest, on_step: OnStep | None = None, stop: Stop | None = None
    ) -> InfillResult: ...

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]: ...


class FirstAttempt:
    """A request at the first model, from its start on; decides whether the second model gets it too."""

    def __init__(self, request: InfillRequest, on_step: OnStep | None = None) -> None:
        self._request, self._caller_step = request, on_step
        self._started, self._stopped = time.monotonic(), False

    @property
    def on_step(self) -> OnStep | None:
        """The caller's callback, for the first model."""
        return None if self._caller_step is None else self._step

    def retry(self, result: InfillResult | GessoError) -> InfillRequest | None:
        """The request for the second model, with the time that is left.

        None if no hole's best text was refused by a check other than its confidence, if no time is left, or if the
        caller stopped the first model and so wants what it had.
        """
        if isinstance(result, GessoError) or self._stopped or not any(map(_is_refused, result.completions)):
            return None
        left_ms = 1000 * (infill_limit_s(self._request) - (time.monotonic() - self._started))
        return replace(self._request, deadline_ms=left_ms) if left_ms >= MIN_LEFT_MS else None

    def _step(self, view: StepView) -> bool:
        assert self._caller_step is not None
        self._stopped = self._caller_step(view) is False
        return not self._stopped


class RetryCompleter:
    """The pipeline of a first model, with a second one for what the checks refuse.

    load: loads the second, once and only if it is needed; None if that fails.
    """

    def __init__(self, first: Pipeline, load: Callable[[], Pipeline | None]) -> None:
        self.first, self._load = first, load

    @cached_property
    def second(self) -> Pipeline | None:
        return self._load()

    def complete(self, request: InfillRequest, on_step: OnStep | None = None, stop: Stop | None = None) -> InfillResult:
        """As `Completer.complete`."""
        attempt = FirstAttempt(request, on_step)
        result = self.first.complete(request, attempt.on_step, stop)
        if attempt.retry(result) is None or self.second is None:
            return result
        again = attempt.retry(result)  # loading took time
        if again is None:
            return result
        try:
            return better(result, self.second.complete(again, on_step, stop))
        except Cancelled:
            raise
        except GessoError as error:
            logger.warning("The retry failed: %s", error)
            return result

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]:
        """As `Completer.complete_batch`."""
        attempts = [FirstAttempt(request) for request in requests]
        results = self.first.complete_batch(requests)
        refused = [index for index, result in enumerate(results) if attempts[index].retry(result) is not None]
        if not refused or self.second is None:
            return results
        again = {index: again for index in refused if (again := attempts[index].retry(results[index])) is not None}
        for index, second in zip(again, self.second.complete_batch([*again.values()]), strict=True):
            first = results[index]
            if isinstance(first, InfillResult) and isinstance(second, InfillResult):
                results[index] = better(first, second)
        return results


def better(first: InfillResult, second: InfillResult) -> InfillResult:
    """The result that shows more holes, `first` if they show as many, with the time of both."""
    best = second if _shown(second) > _shown(first) else first
    stages = {**first.timings_ms, **second.timings_ms}
    timings = {stage: first.timings_ms.get(stage, 0.0) + second.timings_ms.get(stage, 0.0) for stage in stages}
    return replace(best, timings_ms=timings)


def _is_refused(completion: HoleCompletion) -> bool:
    return not completion.shown and bool(completion.candidates) and completion.candidates[0].refused


def _shown(result: InfillResult) -> int:
    return sum(one.shown for one in result.completions)

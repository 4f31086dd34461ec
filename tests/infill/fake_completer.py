"""A completer without a model: fills holes with given texts and records the requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.errors import GessoError, InputError
from infill.request import (
    Candidate,
    HoleCompletion,
    InfillRequest,
    InfillResult,
    OnStep,
    Piece,
    StepView,
)

STEPS = (
    StepView(1, 2, (Piece("known ", "known"), Piece("gues", "noise"), Piece("··", "null"))),
    StepView(2, 2, (Piece("known ", "known"), Piece("done", "settled"), Piece("··", "null"))),
)


class FakeCompleter:
    """answer: from a request and the index of a hole to the text, and the reason if it is not shown."""

    def __init__(self, answer: Callable[[InfillRequest, int], tuple[str, str | None]]) -> None:
        self.answer = answer
        self.requests: list[InfillRequest] = []
        self.batches: list[int] = []

    def complete(self, request: InfillRequest, on_step: OnStep | None = None) -> InfillResult:
        self.requests.append(request)
        for view in STEPS if on_step is not None else ():
            on_step(view)
        completions = []
        for index, hole in enumerate(request.holes):
            text, reason = self.answer(request, index)
            best = Candidate(text, 0.75, reason is None, reason, "model", 3)
            other = Candidate("other", 0.25, False, "copied", "copy", 1)
            every = (best, other)[: request.candidates]
            completions.append(HoleCompletion(hole, text, reason is None, reason, 0.75, every))
        return InfillResult(
            tuple(completions), 2, 100, 40, 64, 16, {"denoise": 1.234, "total": 2.0}, "fake", request.seed
        )

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]:
        self.batches.append(len(requests))
        return [self._result(request) for request in requests]

    def _result(self, request: InfillRequest) -> InfillResult | GessoError:
        try:
            return self.complete(request)
        except InputError as error:
            return error

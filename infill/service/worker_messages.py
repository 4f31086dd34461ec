"""What is said between a worker process and the one who started it. Must not import anything slow."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import GessoError
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult
from infill.settings import Settings


@dataclass(frozen=True)
class Start:
    """The first message to a worker."""

    settings: Settings


@dataclass(frozen=True)
class Ask:
    """`number` is the asker's own; the answer carries it."""

    number: int
    request: InfillRequest | LintRequest


@dataclass(frozen=True)
class Cancel:
    """Request `number` needs no answer; a number that is not known any more is passed over."""

    number: int


@dataclass(frozen=True)
class Loading:
    """Bytes of the weights; total is 0 while it is not known."""

    done: int
    total: int


@dataclass(frozen=True)
class Ready:
    """The model is loaded, or `failure` says in a sentence why not; the worker ends then. lints: whether the
    model's findings are good enough to be shown to those who did not ask for them. note: what the user should know
    all the same, such as that a smaller model answers."""

    failure: str | None
    lints: bool = False
    note: str | None = None


@dataclass(frozen=True)
class Answer:
    """To request `number`: a result, for a lint request findings, or an error. What was cancelled in time has none."""

    number: int
    result: InfillResult | tuple[Finding, ...] | None
    error: GessoError | None


FromWorker = Loading | Ready | Answer

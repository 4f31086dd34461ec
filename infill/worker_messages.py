"""What is said between a worker process and the one who started it. Must not import anything slow."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import GessoError
from infill.request import InfillRequest, InfillResult
from infill.settings import Settings


@dataclass(frozen=True)
class Start:
    """The first message to a worker."""

    settings: Settings


@dataclass(frozen=True)
class Ask:
    number: int
    request: InfillRequest


@dataclass(frozen=True)
class Cancel:
    number: int


@dataclass(frozen=True)
class Loading:
    """Bytes of the weights; total is 0 while it is not known."""

    done: int
    total: int


@dataclass(frozen=True)
class Ready:
    """The model is loaded, or `failure` says in a sentence why not."""

    failure: str | None


@dataclass(frozen=True)
class Answer:
    """Of a request by its number: a result or an error; cancelled: whatever there is, nobody wants it."""

    number: int
    result: InfillResult | None
    error: GessoError | None
    cancelled: bool = False


FromWorker = Loading | Ready | Answer

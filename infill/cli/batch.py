"""Many holes from one JSON-lines file to another: in order, in batches, resumable, bad rows in their place.

A row in: {"id", "language", "prefix", "suffix"}, optionally "path" and "lines". A row out: {"id", "text", "shown",
"reason", "confidence", "steps", "elapsed_ms"}, and "error" where the row could not be used. elapsed_ms is the time
of the batch that the row was filled in, divided by its rows. Must not know of command lines or terminals.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol, get_args

from engine.errors import GessoError, InputError, ModelError
from infill.request import Hole, InfillRequest, InfillResult, Lines
from infill.settings import Settings

Outcome = InfillResult | GessoError


class BatchCompleter(Protocol):
    """What a batch needs of a `Completer`."""

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[Outcome]: ...


@dataclass(frozen=True)
class Row:
    """One row of the input, numbered from 1: its id, and the request or what is wrong with it."""

    number: int
    id: str | int | None
    request: InfillRequest | InputError


class Batch:
    """The work of one input and output file. `done` rows are in the output already."""

    def __init__(self, source: Path, target: Path, settings: Settings) -> None:
        self.source, self.target, self.settings = source, target, settings
        _check_files(source, target)
        self.total = sum(1 for _ in _lines(source))
        self.done = self._resume()

    def run(
        self,
        completer: BatchCompleter,
        on_progress: Callable[[int], None] | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Fills what is left; every batch is on disk before the next one starts. batch_size: if not as settings say."""
        size = batch_size or self.settings.batch_size
        rows = islice(_rows(self.source, self.settings), self.done, None)
        with _opened(self.target, "ab") as sink:
            while batch := list(islice(rows, size)):
                for result in answers(completer, batch):
                    sink.write(_encoded(result))
                sink.flush()
                os.fsync(sink.fileno())
                self.done += len(batch)
                if on_progress is not None:
                    on_progress(self.done)

    def _resume(self) -> int:
        """How many rows the output has; a last row that was cut off is taken away.

        Raises InputError where the rows are not those of the input, in its order.
        """
        if not self.target.exists():
            return 0
        done = whole = 0
        rows = _rows(self.source, self.settings)
        with _opened(self.target, "rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                row = next(rows, None)
                if row is None or row.id != _id_of_result(line):
                    raise InputError(
                        f"Row {done + 1} of {self.target} does not belong to {self.source}; name another file for "
                        "the results, or remove it."
                    )
                done, whole = done + 1, whole + len(line)
        if whole < self.target.stat().st_size:
            os.truncate(self.target, whole)
        return done


def answers(completer: BatchCompleter, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """The rows out for the rows in, in order."""
    requests = [row.request for row in rows if isinstance(row.request, InfillRequest)]
    started = time.perf_counter()
    outcomes = iter(_outcomes(completer, requests) if requests else [])
    elapsed = 1000 * (time.perf_counter() - started) / max(1, len(requests))
    for row in rows:
        outcome = next(outcomes) if isinstance(row.request, InfillRequest) else row.request
        yield _failed(row, outcome) if isinstance(outcome, GessoError) else _filled(row, outcome, elapsed)


def parse_row(line: bytes, number: int, settings: Settings) -> Row:
    """The row of a line of JSON; what is wrong with it stands in it."""
    identity: str | int | None = None
    try:
        content = _object(line)
        identity = _identity(content)
        return Row(number, identity, _request(content, settings))
    except InputError as wrong:
        return Row(number, identity, InputError(f"Row {number} {wrong}"))


def _outcomes(completer: BatchCompleter, requests: Sequence[InfillRequest]) -> list[Outcome]:
    """Together; where that fails, one by one, so that one request cannot take the others with it."""
    try:
        return completer.complete_batch(requests)
    except ModelError:
        raise
    except Exception as error:
        if len(requests) == 1:
            return [InputError(f"could not be filled ({type(error).__name__}: {error}); see the row for anything odd.")]
        return [outcome for request in requests for outcome in _outcomes(completer, [request])]


def _object(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as wrong:
        raise InputError(f"is not valid JSON ({wrong}); write one object a line.") from wrong
    if not isinstance(content, dict):
        raise InputError("is not a JSON object; write one object a line.")
    return content


def _identity(content: dict[str, Any]) -> str | int:
    identity = content.get("id")
    if isinstance(identity, str) or type(identity) is int:
        return identity
    raise InputError("has no 'id'; give it a text or a whole number.")


def _request(content: dict[str, Any], settings: Settings) -> InfillRequest:
    for name in ("prefix", "suffix"):
        if not isinstance(content.get(name), str):
            raise InputError(f"has no text {name!r}; give the code before and after the hole.")
    for name in ("language", "path"):
        if not isinstance(content.get(name), str | None):
            raise InputError(f"has a {name!r} that is no text; write a text or leave it out.")
    lines = content.get("lines") or settings.lines
    if lines not in get_args(Lines):
        raise InputError(f"has lines {lines!r}; write one of {', '.join(get_args(Lines))}.")
    text, cursor = content["prefix"] + content["suffix"], len(content["prefix"])
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as wrong:
        raise InputError("has half a character (a lone surrogate) in its text; correct it.") from wrong
    return InfillRequest(
        text=text,
        holes=(Hole(cursor, cursor),),
        language=content.get("language"),
        path=content.get("path"),
        lines=lines,
        candidates=settings.candidates,
        steps=settings.steps,
        seed=settings.seed,
        deadline_ms=settings.deadline_ms,
    )


def _filled(row: Row, result: InfillResult, elapsed: float) -> dict[str, Any]:
    best = result.completions[0]
    return {
        "id": row.id,
        "text": best.text,
        "shown": best.shown,
        "reason": best.reason,
        "confidence": best.confidence,
        "steps": result.steps,
        "elapsed_ms": round(elapsed, 2),
    }


def _failed(row: Row, error: GessoError) -> dict[str, Any]:
    empty = {"text": "", "shown": False, "reason": "error", "confidence": 0.0, "steps": 0, "elapsed_ms": 0.0}
    return {"id": row.id, **empty, "error": str(error)}


def _encoded(result: dict[str, Any]) -> bytes:
    return json.dumps(result).encode() + b"\n"


def _id_of_result(line: bytes) -> Any:
    """The id of a row out; of what is none, an object that equals no id."""
    try:
        return json.loads(line)["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return object()


def _rows(source: Path, settings: Settings) -> Iterator[Row]:
    return (parse_row(line, number, settings) for number, line in enumerate(_lines(source), start=1))


def _lines(source: Path) -> Iterator[bytes]:
    """Lines that are not blank."""
    with _opened(source, "rb") as stream:
        yield from (line for line in stream if line.strip())


def _opened(file: Path, mode: str) -> IO[bytes]:
    try:
        return file.open(mode)
    except OSError as reason:
        does = "read" if mode == "rb" else "written"
        raise InputError(f"{file} cannot be {does} ({reason.strerror}); check its name and permissions.") from reason


def _check_files(source: Path, target: Path) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{source} cannot be its own result; name another file for the results.")
    if target.exists() and not target.is_file():
        raise InputError(f"{target} is no ordinary file; name a file for the results.")

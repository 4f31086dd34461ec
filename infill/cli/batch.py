"""Fills the rows of a JSON-lines file in batches and writes the results to another, in order; can be resumed.

An input row has "id", "language", "prefix" and "suffix", optionally "path" and "lines". An output row has "id", "text",
"shown", "reason", "confidence", "steps" and "elapsed_ms", and "error" if there is no text: the reason is "error" for an
unusable row, and "failed" for a row that Gesso could not fill and tries again when it resumes. elapsed_ms is the time
of the row's batch divided by its number of rows. Must not know command lines or terminals.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol, get_args

from engine.errors import GessoError, InputError, ModelError, describe_error
from infill.cli import text_edits
from infill.cli.encodings import Decoded
from infill.privacy import check_sent
from infill.request import Hole, InfillRequest, InfillResult, Lines
from infill.service.exchange import ServiceGone
from infill.settings import Settings
from infill.surroundings import was_interrupted

Outcome = InfillResult | GessoError
UNUSABLE, FAILED = "error", "failed"  # reasons of output rows without a text
MOST_LINE_BYTES = 32 << 20  # a text of MOST_CHARACTERS with escapes


class BatchCompleter(Protocol):
    """The part of `Completer` that a batch uses."""

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[Outcome]: ...


@dataclass(frozen=True)
class InputRow:
    """A parsed input row. request: an error if the row is invalid."""

    id: str | int | None
    request: InfillRequest | InputError


class RowFailed(GessoError):
    """Gesso could not fill a row, for no fault of the row."""


class Batch:
    """Fills the rows of the file `source` into the file `target`.

    done: the number of rows that `target` has. failed: the indices of those that Gesso could not fill. unusable: the
    number of those that are unusable.
    """

    def __init__(self, source: Path, target: Path, settings: Settings) -> None:
        self.source, self.target, self.settings = source, target, settings
        self.done, self.unusable, self.failed = 0, 0, set[int]()
        _check_files(source, target)
        self.total = sum(1 for _ in _lines(source))
        self._resume()

    def run(
        self,
        completer: BatchCompleter,
        on_progress: Callable[[int], None] | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Fills the failed rows again and then the remaining ones; flushes each batch of these to disk.

        batch_size: instead of the one in the settings. Raises InputError if the target cannot be written.
        """
        size = batch_size or self.settings.batch_size
        if self.failed:
            self._fill_again(completer, size)
        rows = islice(_rows(self.source, self.settings), self.done, None)
        try:
            with _opened(self.target, "ab") as sink:
                while batch := list(islice(rows, size)):
                    results = list(_results(completer, batch))
                    sink.write(b"".join(map(_encoded, results)))
                    sink.flush()
                    os.fsync(sink.fileno())
                    for result in results:
                        self._count(result)
                    if on_progress is not None:
                        on_progress(self.done)
        except OSError as error:
            raise InputError(
                f"{self.target} cannot be written ({error.strerror}); free disk space, and run the same command again "
                "to resume."
            ) from error

    def _fill_again(self, completer: BatchCompleter, size: int) -> None:
        numbers = sorted(self.failed)
        chosen = (row for number, row in enumerate(_rows(self.source, self.settings)) if number in self.failed)
        results: list[dict[str, Any]] = []
        while batch := list(islice(chosen, size)):
            results += _results(completer, batch)
        with _opened(self.target, "rb") as stream:
            content = stream.read()
        target = text_edits.SourceFile(self.target, Decoded(content.decode()), content)
        lines = content.splitlines(keepends=True)
        for number, result in zip(numbers, results, strict=True):
            lines[number] = _encoded(result)
        text_edits.write_in_place(target, b"".join(lines).decode(), text_edits.named_tree(self.target))
        self.failed = {number for number, result in zip(numbers, results, strict=True) if result["reason"] == FAILED}

    def _resume(self) -> None:
        """Counts the complete rows in the output and truncates a partial last row.

        Raises InputError if the IDs are not those of the input, in the same order.
        """
        if not self.target.exists():
            return
        size = 0
        rows = _rows(self.source, self.settings)
        with _opened(self.target, "rb") as stream:
            while line := stream.readline(MOST_LINE_BYTES + 1):
                row, is_complete = next(rows, None), line.endswith(b"\n")
                result = _output_row(line) if is_complete else None
                if row is not None and not is_complete and _begins(line, row):
                    break
                if row is None or result is None or row.id != result["id"]:
                    raise InputError(
                        f"Row {self.done + 1} of {self.target} does not match {self.source}; name another output file, "
                        "or delete this one."
                    )
                self._count(result)
                size += len(line)
        if size < self.target.stat().st_size:
            os.truncate(self.target, size)

    def _count(self, result: Mapping[str, Any]) -> None:
        if result.get("reason") == FAILED and "error" in result:
            self.failed.add(self.done)
        elif "error" in result:
            self.unusable += 1
        self.done += 1


def _results(completer: BatchCompleter, rows: Sequence[InputRow]) -> Iterator[dict[str, Any]]:
    """The output rows for these input rows, in order."""
    requests = [row.request for row in rows if isinstance(row.request, InfillRequest)]
    started = time.perf_counter()
    outcomes = iter(_outcomes(completer, requests) if requests else [])
    elapsed = 1000 * (time.perf_counter() - started) / max(1, len(requests))
    for row in rows:
        outcome = next(outcomes) if isinstance(row.request, InfillRequest) else row.request
        yield _failed(row, outcome) if isinstance(outcome, GessoError) else _filled(row, outcome, elapsed)


def _parse_row(line: bytes, number: int, settings: Settings) -> InputRow:
    """Parses a line of JSON. number: counts from 1, for the error message."""
    row_id: str | int | None = None
    try:
        fields = _object(line)
        row_id = _row_id(fields)
        return InputRow(row_id, _request(fields, settings))
    except InputError as error:
        return InputRow(row_id, InputError(f"Row {number} {error}"))


def _outcomes(completer: BatchCompleter, requests: Sequence[InfillRequest]) -> list[Outcome]:
    """Completes the requests as a batch. If that fails, completes them one by one to isolate the failing request."""
    try:
        return completer.complete_batch(requests)
    except (ModelError, ServiceGone):
        raise
    except Exception as error:
        if was_interrupted():  # a library may have swallowed the interrupt and failed because of it
            raise KeyboardInterrupt from error
        if len(requests) == 1:
            if isinstance(error, InputError):
                return [error]
            return [RowFailed(f"The row could not be filled ({describe_error(error)}); run the same command again.")]
        return [outcome for request in requests for outcome in _outcomes(completer, [request])]


def _object(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not valid JSON ({error}); write one object per line.") from error
    if not isinstance(fields, dict):
        raise InputError("is not a JSON object; write one object per line.")
    return fields


def _row_id(fields: dict[str, Any]) -> str | int:
    row_id = fields.get("id")
    if isinstance(row_id, str) or type(row_id) is int:
        return row_id
    raise InputError("has no 'id'; add one that is a string or an integer.")


def _request(fields: dict[str, Any], settings: Settings) -> InfillRequest:
    for name in ("prefix", "suffix"):
        if not isinstance(fields.get(name), str):
            raise InputError(f"has no string {name!r}; give the code before and after the hole.")
    for name in ("language", "path"):
        if not isinstance(fields.get(name), str | None):
            raise InputError(f"has a {name!r} that is not a string; write a string or leave it out.")
    if path := fields.get("path"):
        try:
            check_sent(Path(path))
        except InputError as error:
            raise InputError(f"has a path that must not be read: {error}") from error
    lines = fields.get("lines") or settings.lines
    if lines not in get_args(Lines):
        raise InputError(f"has lines {lines!r}; use one of {', '.join(get_args(Lines))}.")
    text, cursor = fields["prefix"] + fields["suffix"], len(fields["prefix"])
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError("has a lone surrogate in its text; replace it with a complete character.") from error
    return InfillRequest(
        text=text,
        holes=(Hole(cursor, cursor),),
        language=fields.get("language"),
        path=path,
        lines=lines,
        candidates=settings.candidates,
        steps=settings.steps,
        seed=settings.seed,
        deadline_ms=settings.deadline_ms,
    )


def _filled(row: InputRow, result: InfillResult, elapsed: float) -> dict[str, Any]:
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


def _failed(row: InputRow, error: GessoError) -> dict[str, Any]:
    reason = UNUSABLE if isinstance(error, InputError) else FAILED
    empty = {"text": "", "shown": False, "reason": reason, "confidence": 0.0, "steps": 0, "elapsed_ms": 0.0}
    return {"id": row.id, **empty, "error": str(error)}


def _encoded(result: dict[str, Any]) -> bytes:
    return json.dumps(result).encode() + b"\n"


def _begins(line: bytes, row: InputRow) -> bool:
    """Whether an incomplete line may be the beginning of the output row for `row`."""
    start = json.dumps({"id": row.id})[:-1].encode()
    return line[: len(start)] == start[: len(line)]


def _output_row(line: bytes) -> dict[str, Any] | None:
    """None if the line is not a valid output row."""
    try:
        result = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return result if isinstance(result, dict) and "id" in result else None


def _rows(source: Path, settings: Settings) -> Iterator[InputRow]:
    return (_parse_row(line, number, settings) for number, line in enumerate(_lines(source), start=1))


def _lines(source: Path) -> Iterator[bytes]:
    """The lines that are not blank; raises InputError if one is too long."""
    with _opened(source, "rb") as stream:
        while line := stream.readline(MOST_LINE_BYTES + 1):
            if len(line) > MOST_LINE_BYTES:
                raise InputError(f"{source} has a line of more than {MOST_LINE_BYTES >> 20} MiB; shorten that row.")
            if line.strip():
                yield line


def _opened(file: Path, mode: str) -> IO[bytes]:
    try:
        return file.open(mode)
    except OSError as error:
        action = "read" if mode == "rb" else "written"
        raise InputError(f"{file} cannot be {action} ({error.strerror}); check its name and permissions.") from error


def _check_files(source: Path, target: Path) -> None:
    text_edits.real_path(target, text_edits.named_tree(target))
    if source.exists() and not source.is_file():
        raise InputError(f"{source} is not a regular file; write the rows to one first.")
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{source} is both input and output; name another output file.")
    if target.exists():
        text_edits.check_own(target, target.stat(), "name another output file")

"""Timed requests and their summary. No time is asserted."""

from __future__ import annotations

import pytest

from bench.speed.pocket import (
    STAGES,
    peak_memory,
    start_up,
    summary,
    type_on,
)
from bench.typed_lines import Source, typed_lines
from engine.errors import InputError
from infill.complete.completion import Completer
from infill.request import InfillRequest, InfillResult

TEXT = "".join(f"    value_{number} = compute({number})\n" for number in range(300))


@pytest.fixture
def source() -> Source:
    return Source("file.py", TEXT, "python")


class Counting:
    """The shipped model, and its requests."""

    def __init__(self, completer: Completer) -> None:
        self.completer, self.requests = completer, list[InfillRequest]()

    def complete(self, request: InfillRequest) -> InfillResult:
        self.requests.append(request)
        return self.completer.complete(request)


def test_the_next_keystroke_finds_the_prompt_in_the_cache(completer: Completer, source: Source) -> None:
    counting = Counting(completer)
    taken = type_on(counting, typed_lines([source], 1, 0)[0], keystrokes=1)
    assert len(counting.requests) == len(taken) == 2
    assert taken[0]["encoded_tokens"] > 0 and taken[1]["encoded_tokens"] < taken[0]["encoded_tokens"]
    summed = summary(taken)
    assert summed["requests"] == 2 and summed["p50"] <= summed["p95"] == max(one["total"] for one in taken)
    assert 0 < summed["cpu_p50"] <= summed["cpu_p95"] == max(one["cpu"] for one in taken)
    assert (
        summed["mean"].keys() == {"total", "cpu", "steps", "encoded_tokens", *STAGES} and summed["mean"]["steps"] >= 1
    )


def test_a_process_reports_when_it_is_ready() -> None:
    start = start_up("pocket")
    imported, loaded, ready = start["import_ms"], start["load_ms"], start["ready_ms"]
    assert imported and loaded and ready and ready >= imported + loaded
    assert (start["peak_mib"] is None) == (peak_memory() is None)


def test_a_process_that_cannot_load_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="nowhere"):
        start_up("./nowhere")
    assert "nowhere" in capfd.readouterr().err

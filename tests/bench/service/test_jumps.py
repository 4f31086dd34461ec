"""Requests of the bench of jumps, and its table, with a fake service. No time is asserted."""

from __future__ import annotations

import os
from typing import Any

import psutil
import pytest

from bench.service import jumps
from bench.service.jumps import LINES, long_file, measure, report, request
from infill.request import InfillRequest, InfillResult


class FakeClient:
    def __init__(self) -> None:
        self.requests: list[InfillRequest] = []

    def complete(self, infill_request: InfillRequest) -> InfillResult:
        self.requests.append(infill_request)
        return InfillResult((), 1, 1, 1, 1, 1, dict.fromkeys(jumps.STAGES, 1.0), "none", 0)


def test_a_third_of_the_line_is_typed() -> None:
    made = request(["first = 1", "    return value", "last = 3"], 1, 3)
    (hole,) = made.holes
    assert made.text == "first = 1\n    retu\nlast = 3\n" and made.text[: hole.start].endswith("    retu")
    assert request(["first = 1", "    return value", "last = 3"], 1, 2).text == "first = 1\n    retu\n"


def test_jumps_and_appended_lines_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jumps, "WARM_UP", 1)
    client: Any = FakeClient()
    found = measure(client, psutil.Process(os.getpid()), 2, 0)
    assert len(found["append"]) == len(found["jump"]) == 2 and len(client.requests) == 6
    sizes = [one.text.count("\n") for one in client.requests]
    assert sizes[1::2] == [LINES] * 3 and sizes[::2] == sorted(sizes[::2]) and len(long_file()) == LINES
    made = report(found, "none")
    assert [row[0] for row in made.rows] == ["append", "jump"] and "the aim is 1.5" in made.notes[1]

"""Which requests are timed, and how the times are summed up. No time is asserted."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bench.speed.pocket import (
    LEAST_CODE,
    LINES,
    STAGES,
    Source,
    Typing,
    peak_memory,
    percentile,
    sources,
    start_up,
    summary,
    type_on,
    typings,
)
from engine.errors import InputError
from infill.complete.completion import Completer
from infill.request import InfillRequest, InfillResult

TEXT = "".join(f"    value_{number} = compute({number})\n" for number in range(300))


@pytest.fixture
def source() -> Source:
    return Source("file.py", TEXT, "python")


def test_lines_are_from_the_middle_and_a_third_is_typed(source: Source) -> None:
    made = typings([source], 20, seed=0)
    assert made == typings([source], 20, seed=0) != typings([source], 20, seed=1)
    for typing in made:
        line = TEXT[typing.start : typing.end]
        assert TEXT[typing.start - 1] == TEXT[typing.end] == "\n" and "\n" not in line
        assert 100 <= TEXT.count("\n", 0, typing.start) < 200
        assert typing.typed == 4 + len(line.strip()) // 3 and len(line.strip()) >= LEAST_CODE


def test_every_file_has_its_turn(source: Source) -> None:
    others = [Source(f"{number}.py", TEXT, "python") for number in range(3)]
    assert [typing.source for typing in typings(others, 6, 0)] == others * 2


def test_what_is_typed_grows_and_nothing_stands_behind_the_cursor(source: Source) -> None:
    start = TEXT.index("    value_150")
    typing = Typing(source, start, TEXT.index("\n", start), 8)
    first, third, beyond = (typing.request(more) for more in (0, 2, 1000))
    assert third.text[: third.holes[0].start].endswith("\n    valu" + "e_")
    assert third.text[third.holes[0].end :].startswith("\n    value_151")
    assert len(third.text) == len(first.text) + 2 and third.lines == "one"
    assert beyond.text == TEXT and beyond.holes[0].start == typing.end


def test_sources_are_of_the_right_length_and_held_out(tmp_path: Path) -> None:
    rows = [
        {"path": "a.py", "text": TEXT, "language": "python", "split": "valid"},
        {"path": "b.py", "text": TEXT, "language": "python", "split": "train"},
        {"path": "c.py", "text": TEXT * 2, "language": "python", "split": "valid"},
    ]
    corpus, script = tmp_path / "files.jsonl.gz", tmp_path / "script.ts"
    with gzip.open(corpus, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    script.write_text(TEXT)
    assert [(one.path, one.language) for one in sources([corpus, script])] == [
        ("a.py", "python"),
        ("script.ts", "typescript"),
    ]
    assert all(LINES[0] <= one.text.count("\n") <= LINES[1] for one in sources([]))
    script.write_text("short\n")
    with pytest.raises(InputError, match="--file"):
        sources([script])
    with pytest.raises(InputError, match="absent"):
        sources([tmp_path / "absent.py"])


def test_percentiles_are_measured_samples() -> None:
    samples = [float(number) for number in range(20, 0, -1)]
    assert percentile(samples, 0.5) == 10 and percentile(samples, 0.95) == 19 and percentile(samples, 1.0) == 20
    assert percentile([7.0], 0.5) == percentile([7.0], 0.95) == 7


class Counting:
    """The shipped model, and what it was asked."""

    def __init__(self, completer: Completer) -> None:
        self.completer, self.asked = completer, list[InfillRequest]()

    def complete(self, request: InfillRequest) -> InfillResult:
        self.asked.append(request)
        return self.completer.complete(request)


def test_the_next_keystroke_finds_the_prompt_in_the_cache(completer: Completer, source: Source) -> None:
    counting = Counting(completer)
    taken = type_on(counting, typings([source], 1, 0)[0], keystrokes=1)
    assert len(counting.asked) == len(taken) == 2
    assert taken[0]["encoded_tokens"] > 0 and taken[1]["encoded_tokens"] < taken[0]["encoded_tokens"]
    summed = summary(taken)
    assert summed["requests"] == 2 and summed["p50"] <= summed["p95"] == max(one["total"] for one in taken)
    assert 0 < summed["cpu_p50"] <= summed["cpu_p95"] == max(one["cpu"] for one in taken)
    assert (
        summed["mean"].keys() == {"total", "cpu", "steps", "encoded_tokens", *STAGES} and summed["mean"]["steps"] >= 1
    )


def test_a_process_tells_when_it_is_ready() -> None:
    start = start_up("pocket")
    imported, loaded, ready = start["import_ms"], start["load_ms"], start["ready_ms"]
    assert imported and loaded and ready and ready >= imported + loaded
    assert (start["peak_mib"] is None) == (peak_memory() is None)


def test_a_process_that_cannot_load_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="nowhere"):
        start_up("./nowhere")
    assert "nowhere" in capfd.readouterr().err

"""Typed lines: which lines of which files, and their requests."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bench.typed_lines import LINES, MIN_CODE, Source, TypedLine, sources, typed_lines
from engine.errors import InputError

TEXT = "".join(f"    value_{number} = compute({number})\n" for number in range(300))


@pytest.fixture
def source() -> Source:
    return Source("file.py", TEXT, "python")


def test_lines_come_from_the_middle_and_a_third_is_typed(source: Source) -> None:
    made = typed_lines([source], 20, seed=0)
    assert made == typed_lines([source], 20, seed=0) != typed_lines([source], 20, seed=1)
    for line in made:
        text = TEXT[line.start : line.end]
        assert TEXT[line.start - 1] == TEXT[line.end] == "\n" and "\n" not in text
        assert 100 <= TEXT.count("\n", 0, line.start) < 200
        assert line.typed == 4 + len(text.strip()) // 3 and len(text.strip()) >= MIN_CODE


def test_every_file_has_its_turn(source: Source) -> None:
    others = [Source(f"{number}.py", TEXT, "python") for number in range(3)]
    assert [line.source for line in typed_lines(others, 6, 0)] == others * 2


def test_requests_grow_and_have_nothing_after_the_cursor(source: Source) -> None:
    start = TEXT.index("    value_150")
    line = TypedLine(source, start, TEXT.index("\n", start), 8)
    first, third, beyond = (line.request(more) for more in (0, 2, 1000))
    assert third.text[: third.holes[0].start].endswith("\n    valu" + "e_")
    assert third.text[third.holes[0].end :].startswith("\n    value_151")
    assert len(third.text) == len(first.text) + 2 and third.lines == "one"
    assert beyond.text == TEXT and beyond.holes[0].start == line.end


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

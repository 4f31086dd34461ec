"""Lists of names that many projects use."""

import json
from pathlib import Path

import pytest

from engine.errors import ModelError
from infill.lint.names import FILE, Bloom, KnownNames, words_of


def known() -> KnownNames:
    names, words = ("topk", "max_item"), ("topk", "max", "item", "square", "squared", "pace")
    return KnownNames(*map(Bloom.of, (names, words, ("max", "item"))))


def test_names_split_into_words() -> None:
    assert words_of("maxItem_count") == ["max", "item", "count"]
    assert words_of("HTTPServer2") == ["http", "server"] and words_of("_1") == []


def test_filters_have_all_members_and_few_false_positives() -> None:
    members = [f"name{number}" for number in range(2000)]
    one = Bloom.of(members)
    assert all(member in one for member in members)
    assert sum(f"other{number}" in one for number in range(2000)) < 60
    assert len(one.bits) < 2000 * 10 / 8 and "x" not in Bloom.of([])


def test_familiarity() -> None:
    one = known()
    assert one.familiarity("itmes", "items") == 0
    assert one.familiarity("square", "squared") == 1
    assert one.familiarity("topk", "top_k") == 2
    assert one.familiarity("max_item", "max_items") == 3


def test_shared_words_do_not_count() -> None:
    assert known().familiarity("gesso_pace", "gesso_place") == 1
    assert known().familiarity("gesso_pcae", "gesso_place") == 0


def test_lists_are_written_and_read(tmp_path: Path) -> None:
    file = tmp_path / FILE.name
    assert KnownNames.read(file) is None
    known().write({"projects": 3}, file)
    assert KnownNames.read(file) == known()
    assert json.loads(file.read_text())["made"] == {"projects": 3}
    file.write_text('{"names": 1}')
    with pytest.raises(ModelError, match=FILE.name):
        KnownNames.read(file)

"""What is remembered of the offer of a model: it is made once a day on a machine, and never after *Never*."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from lsp import offer_record
from lsp.offer_record import OfferRecord
from tests.waiting import PATIENCE_S


@pytest.fixture
def record(tmp_path: Path) -> OfferRecord:
    return OfferRecord(tmp_path / "models" / "offer.json")


def test_one_of_many_editors_may_ask(record: OfferRecord, tmp_path: Path) -> None:
    assert record.answer == "later"
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(record.may_ask())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(found) == [False] * 7 + [True]


def test_after_a_day_it_may_be_asked_again(record: OfferRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    assert record.may_ask()
    monkeypatch.setattr(offer_record.time, "time", lambda: now + offer_record.AGAIN_S - 60)
    assert not record.may_ask()
    monkeypatch.setattr(offer_record.time, "time", lambda: now + offer_record.AGAIN_S + 60)
    assert record.may_ask() and not record.may_ask()


def test_a_clock_that_was_set_back_does_not_prevent_the_question(record: OfferRecord, tmp_path: Path) -> None:
    record.remember("later")
    file = tmp_path / "models" / "offer.json"
    file.write_text(json.dumps({"asked": time.time() + 1e7, "answer": "later"}))
    assert record.may_ask()


@pytest.mark.parametrize("answer", ["never", "download"])
def test_an_answer_is_kept(record: OfferRecord, answer: offer_record.Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    record.remember(answer)
    monkeypatch.setattr(offer_record.time, "time", lambda: 4e9)
    assert record.answer == answer and not record.may_ask()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"asked": "x", "answer": "later"}', '{"asked": 1, "answer": "yes"}'])
def test_a_damaged_record_counts_as_none(record: OfferRecord, tmp_path: Path, text: str) -> None:
    file = tmp_path / "models" / "offer.json"
    file.parent.mkdir()
    file.write_text(text)
    assert record.answer == "later" and record.may_ask() and not record.may_ask()


def test_without_a_writable_folder_nothing_is_asked(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    record = OfferRecord(tmp_path / "models" / "offer.json")
    assert not record.may_ask() and record.answer == "later"
    record.remember("never")

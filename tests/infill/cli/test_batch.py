"""`gesso batch`: order of rows, resuming, invalid rows."""

import json
import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.errors import GessoError, InputError, ModelError
from infill.cli.batch import Batch
from infill.request import Hole, InfillRequest, InfillResult
from infill.service.exchange import ServiceGone
from infill.settings import Settings
from tests.infill.fake_completer import FakeCompleter

COLUMNS = ["id", "text", "shown", "reason", "confidence", "steps", "elapsed_ms"]


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "language": "python", "prefix": f"x{number} = ", "suffix": "\n", **more}


def upper_case_prefix(request: InfillRequest, hole: int) -> tuple[str, str | None]:
    text = request.text[: request.holes[hole].start].upper()
    return text, "low" if "X1" in text else None


@pytest.fixture
def completer() -> FakeCompleter:
    return FakeCompleter(upper_case_prefix)


class Files:
    def __init__(self, folder: Path) -> None:
        self.source, self.target = folder / "in.jsonl", folder / "out.jsonl"

    def write(self, rows: Sequence[dict[str, Any] | str]) -> None:
        lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
        self.source.write_text("\n".join(lines) + "\n")

    def results(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.target.read_text().splitlines()]

    def batch(self, **settings: Any) -> Batch:
        return Batch(self.source, self.target, Settings(**settings))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_results_are_in_order_and_have_these_columns(files: Files, completer: FakeCompleter) -> None:
    files.write([row(n) for n in range(5)])
    seen: list[int] = []
    files.batch(batch_size=2).run(completer, seen.append)
    results = files.results()
    assert [list(result) for result in results] == [COLUMNS] * 5
    assert [result["text"] for result in results] == [f"X{n} = " for n in range(5)]
    assert (results[1]["shown"], results[1]["reason"]) == (False, "low")
    assert (results[2]["shown"], results[2]["reason"], results[2]["steps"]) == (True, None, 2)
    assert completer.batches == [2, 2, 1] and seen == [2, 4, 5]


def test_a_row_becomes_a_request(files: Files, completer: FakeCompleter) -> None:
    files.write([row(1, path="a/b.py", lines="block"), {"id": "two", "prefix": "é", "suffix": "z"}])
    files.batch(steps=3, seed=9, lines="one").run(completer)
    first, second = completer.requests
    assert first == InfillRequest("x1 = \n", (Hole(5, 5),), "python", "a/b.py", "block", candidates=1, steps=3, seed=9)
    assert (second.text, second.holes, second.language, second.lines) == ("éz", (Hole(1, 1),), None, "one")


@pytest.mark.parametrize(
    ("bad", "row_id", "sentence"),
    [
        ("{not json", None, "Row 2 is not valid JSON"),
        ("[1]", None, "Row 2 is not a JSON object"),
        ({"prefix": "a", "suffix": "b"}, None, "Row 2 has no 'id'"),
        ({"id": True, "prefix": "a", "suffix": "b"}, None, "Row 2 has no 'id'"),
        ({"id": "r", "prefix": "a"}, "r", "Row 2 has no string 'suffix'"),
        ({"id": "r", "prefix": "a", "suffix": "b", "lines": "many"}, "r", "Row 2 has lines 'many'"),
        ({"id": "r", "prefix": "a", "suffix": "b", "language": 3}, "r", "Row 2 has a 'language'"),
        ({"id": "r", "prefix": "a\ud800", "suffix": "b"}, "r", "Row 2 has a lone surrogate"),
    ],
)
def test_an_invalid_row_becomes_a_row_with_an_error(
    files: Files, completer: FakeCompleter, bad: Any, row_id: Any, sentence: str
) -> None:
    files.write([row(1), bad, row(3)])
    files.batch().run(completer)
    results = files.results()
    assert [result["id"] for result in results] == [1, row_id, 3]
    assert list(results[1]) == [*COLUMNS, "error"]
    assert results[1]["error"].startswith(sentence) and not results[1]["shown"]
    assert results[2]["text"] == "X3 = "


def test_a_request_that_fails_does_not_affect_the_others(files: Files) -> None:
    def answer(request: InfillRequest, hole: int) -> tuple[str, str | None]:
        if request.text.startswith("x1"):
            raise InputError("The hole is odd.")
        if request.text.startswith("x2"):
            raise RuntimeError("strange")
        return "good", None

    files.write([row(n) for n in range(4)])
    files.batch().run(FakeCompleter(answer))
    results = files.results()
    assert [result["text"] for result in results] == ["good", "", "", "good"]
    assert results[1]["error"] == "The hole is odd." and "RuntimeError: strange" in results[2]["error"]


def test_a_model_error_stops_the_batch(files: Files) -> None:
    def answer(request: InfillRequest, hole: int) -> tuple[str, str | None]:
        raise ModelError("broken")

    files.write([row(1)])
    with pytest.raises(ModelError):
        files.batch().run(FakeCompleter(answer))
    assert files.results() == []


@pytest.mark.parametrize("cut", range(0, 400, 23))
def test_a_batch_resumes_wherever_its_output_was_cut_off(files: Files, completer: FakeCompleter, cut: int) -> None:
    files.write([row(1), "nonsense", row(2), row(2), row(3)])
    files.batch(batch_size=2).run(completer)
    complete = files.results()
    files.target.write_bytes(files.target.read_bytes()[:cut])
    again = files.batch(batch_size=2)
    assert again.done == len(files.results())
    again.run(completer)
    for result in (*complete, *(resumed := files.results())):
        del result["elapsed_ms"]
    assert resumed == complete


class Interrupted(FakeCompleter):
    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]:
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        return super().complete_batch(requests)


def test_an_interruption_keeps_complete_batches_and_loses_no_row(files: Files, completer: FakeCompleter) -> None:
    files.write([row(n) for n in range(7)])
    work = files.batch(batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        work.run(Interrupted(upper_case_prefix))
    assert work.done == 4 == len(files.results())
    files.batch(batch_size=2).run(completer)
    assert [result["id"] for result in files.results()] == list(range(7))
    assert sum(completer.batches) == 3


@pytest.mark.parametrize("line", ['{"id": 9}', "something else", '{"text": ""}', "[]"])
def test_an_output_file_of_another_input_is_refused(files: Files, line: str) -> None:
    files.write([row(1)])
    files.target.write_text(line + "\n")
    with pytest.raises(InputError, match="does not match"):
        files.batch()
    assert files.target.read_text() == line + "\n"


@pytest.mark.parametrize("text", ["x = 1", '{"name": "project"', '{"id": 7, "te', "\0" * 100])
def test_a_file_that_is_not_an_output_is_not_cut_off(files: Files, text: str) -> None:
    files.write([row(1)])
    files.target.write_text(text)
    with pytest.raises(InputError, match="does not match"):
        files.batch()
    assert files.target.read_text() == text


def test_a_setuid_output_is_refused(files: Files) -> None:
    files.write([row(1)])
    files.target.touch()
    files.target.chmod(0o4755)
    with pytest.raises(InputError, match="is setuid or setgid"):
        files.batch()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_an_output_of_another_user_is_refused(files: Files) -> None:
    files.write([row(1)])
    files.target.touch()
    os.chown(files.target, 12345, 12345)
    with pytest.raises(InputError, match="belongs to another user"):
        files.batch()


def test_more_results_than_rows_are_refused(files: Files, completer: FakeCompleter) -> None:
    files.write([row(1), row(2)])
    files.batch().run(completer)
    files.write([row(1)])
    with pytest.raises(InputError, match="Row 2"):
        files.batch()


def test_unusable_files_are_refused(files: Files, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        files.batch()
    files.write([row(1)])
    with pytest.raises(InputError, match="both input and output"):
        Batch(files.source, files.source, Settings())
    with pytest.raises(InputError, match="not a regular file"):
        Batch(files.source, tmp_path, Settings())


def test_the_output_may_not_be_a_link_out_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("in.jsonl").write_text("")
    Path("out.jsonl").symlink_to(tmp_path / "new.jsonl")
    with pytest.raises(InputError, match="leads out of"):
        Batch(Path("in.jsonl"), Path("out.jsonl"), Settings())
    assert not (tmp_path / "new.jsonl").exists()


def test_rows_that_gesso_failed_on_are_filled_by_the_next_run(files: Files, completer: FakeCompleter) -> None:
    def answer(request: InfillRequest, hole: int) -> tuple[str, str | None]:
        if request.text.startswith(("x1", "x4")):
            raise AttributeError("half imported")
        return "first", None

    files.write([row(n) for n in range(3)] + ["nonsense"] + [row(n) for n in range(4, 6)])
    first = files.batch(batch_size=2)
    first.run(FakeCompleter(answer))
    assert (first.done, first.unusable, first.failed) == (6, 1, {1, 4})
    reasons = [result["reason"] for result in files.results()]
    assert reasons == [None, "failed", None, "error", "failed", None]
    again = files.batch(batch_size=2)
    assert (again.done, again.unusable, again.failed) == (6, 1, {1, 4})
    again.run(completer)
    assert again.failed == set() and completer.batches == [2]
    texts = [result["text"] for result in files.results()]
    assert texts == ["first", "X1 = ", "first", "", "X4 = ", "first"]
    assert [result["id"] for result in files.results()] == [0, 1, 2, None, 4, 5]
    assert files.batch().failed == set()


def test_failed_rows_of_a_large_output_are_filled_again(
    files: Files, completer: FakeCompleter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: InfillRequest, hole: int) -> tuple[str, str | None]:
        raise RuntimeError("strange")

    files.write([row(1), row(2)])
    files.batch().run(FakeCompleter(answer))
    monkeypatch.setattr("infill.cli.text_edits.MOST_BYTES", 100)
    files.batch().run(completer)
    assert [result["text"] for result in files.results()] == ["X1 = ", "X2 = "]


def test_rows_that_fail_again_are_tried_again(files: Files) -> None:
    def answer(request: InfillRequest, hole: int) -> tuple[str, str | None]:
        raise RuntimeError("strange")

    files.write([row(1), row(2)])
    for _ in range(2):
        batch = files.batch()
        batch.run(FakeCompleter(answer))
        assert batch.failed == {0, 1} and len(files.results()) == 2


def test_a_service_that_is_gone_stops_the_batch(files: Files) -> None:
    def answer(request: InfillRequest, hole: int) -> tuple[str, str | None]:
        raise ServiceGone("No service.")

    files.write([row(1), row(2)])
    with pytest.raises(ServiceGone):
        files.batch().run(FakeCompleter(answer))
    assert files.results() == []


def test_an_error_that_an_interrupt_caused_is_not_a_result(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: InfillRequest, hole: int) -> tuple[str, str | None]:
        raise AttributeError("partially initialized module 'numpy'")

    monkeypatch.setattr("infill.cli.batch.was_interrupted", lambda: True)
    files.write([row(1), row(2)])
    with pytest.raises(KeyboardInterrupt):
        files.batch().run(FakeCompleter(answer))
    assert files.results() == []


def test_a_full_disk_is_named_and_the_rows_before_it_are_kept(files: Files, completer: FakeCompleter) -> None:
    files.write([row(n) for n in range(40)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"out.jsonl cannot be written \(File too large\); free disk space"):
            files.batch(batch_size=4).run(completer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    resumed = files.batch()
    assert 0 < resumed.done < 40
    resumed.run(completer)
    assert [result["id"] for result in files.results()] == list(range(40))


def test_rows_come_from_a_regular_file_with_bounded_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="is not a regular file"):
            Batch(source, tmp_path / "out.jsonl", Settings())
    monkeypatch.setattr("infill.cli.batch.MOST_LINE_BYTES", 1 << 20)
    (tmp_path / "in.jsonl").write_bytes(b"x" * (1 << 20) + b"y")
    with pytest.raises(InputError, match="has a line of more than 1 MiB"):
        Batch(tmp_path / "in.jsonl", tmp_path / "out.jsonl", Settings())

"""The commands with a real service, and the same commands without it."""

from __future__ import annotations

import json
import os
import signal
from itertools import count
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infill.cli import support as cli_support
from infill.cli.main import app
from infill.cli.service import service_for
from infill.model_store import POCKET_FOLDER
from infill.request import InfillRequest, InfillResult
from infill.service.client import ServiceClient
from infill.service.location import all_locations, location_at, lock_holder
from infill.settings import Settings

SLIP = "class A:\n    def one(self):\n        return 1\n\n    def two(self):\n        return one() + self.one()\n"


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("XDG_RUNTIME_DIR", str(home)), ("GESSO_DTYPE", "float32"), ("GESSO_THREADS", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_model_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a command loads the model itself."""

    def refuse(settings: Settings) -> None:
        raise AssertionError("the model was loaded in this process")

    monkeypatch.setattr(cli_support, "load_completer", refuse)


def gesso(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def rows(count: int) -> str:
    """The third cannot be used."""
    made = [
        {"id": n, "language": "python", "prefix": f"def add_{n}(one, other):\n    return ", "suffix": "\n"}
        for n in range(count)
    ]
    lines = [json.dumps(row) for row in made]
    lines[2] = "no row"
    return "".join(f"{line}\n" for line in lines)


def texts(file: Path) -> list[tuple[object, str, bool]]:
    return [(row["id"], row["text"], row["shown"]) for row in map(json.loads, file.read_text().splitlines())]


def test_no_service_is_started_unless_requested(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "nobody"))
    assert service_for(Settings(), None) is None and service_for(Settings(), False) is None
    assert lock_holder(location_at()) is None


def test_lint_with_the_service(no_model_here: None) -> None:
    Path("app.py").write_text(SLIP)
    result = gesso("lint", "--service", "--json", "app.py")
    assert result.exit_code == 1, result.stderr
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["replacement"] == "self.one"
    assert gesso("lint", "--json", "app.py").stdout == result.stdout, "a running service is used by default"
    assert gesso("lint", "--service", "--off", finding["code"], "app.py").exit_code == 0


def test_a_batch_with_the_service(no_model_here: None) -> None:
    Path("in.jsonl").write_text(rows(5))
    result = gesso("batch", "--service", "in.jsonl", "out.jsonl")
    assert result.exit_code == 1 and "1 of them cannot be used" in result.stderr
    found = texts(Path("out.jsonl"))
    assert [row[0] for row in found] == [0, 1, None, 3, 4]
    assert all(text for number, text, _ in found if number is not None)


@pytest.mark.slow
def test_results_are_the_same_with_and_without_the_service(home: Path) -> None:
    Path("app.py").write_text(SLIP)
    Path("in.jsonl").write_text(rows(6))
    for name in ("service", "no-service"):
        assert gesso("batch", f"--{name}", "in.jsonl", f"{name}.jsonl").exit_code == 1, "one row cannot be used"
    assert texts(Path("service.jsonl")) == texts(Path("no-service.jsonl"))
    options = "--json", "--on", "misspelled", "app.py"
    lint = [gesso("lint", f"--{name}", *options).stdout for name in ("service", "no-service")]
    assert lint[0] == lint[1] and json.loads(lint[0])["findings"] != []
    infill = [gesso("infill", f"--{name}", "app.py", "--at", "2:10").stdout for name in ("service", "no-service")]
    assert infill[0] == infill[1]


@pytest.mark.slow
def test_a_batch_survives_the_death_of_the_service(no_model_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    service = ServiceClient(settings=Settings(), priority="batch")
    service.connect()
    requests = [_request(number) for number in range(24)]
    first, complete, sent = lock_holder(location_at()), service.complete, count(1)
    assert first is not None

    def complete_or_kill(request: InfillRequest) -> InfillResult:
        if next(sent) == 12:
            os.kill(first, signal.SIGKILL)
        return complete(request)

    monkeypatch.setattr(service, "complete", complete_or_kill)
    answers = service.complete_batch(requests)
    assert all(isinstance(answer, InfillResult) for answer in answers) and len(answers) == 24
    assert lock_holder(location_at()) not in (None, first)


def _request(number: int):  # type: ignore[no-untyped-def]
    from tests.infill.fakes import request

    return request(f"def add_{number}(one, other):\n    total = one\n    return §\n", candidates=2)


def test_a_model_that_is_missing_is_reported_before_a_service_starts(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = \n")
    before = {one for one in all_locations() if lock_holder(one)}
    result = gesso("infill", "a.py", "--at", "1:5", "--model", "./absent", "--service")
    assert result.exit_code == 3 and f"no model folder {tmp_path / 'absent'}" in result.stderr
    assert {one for one in all_locations() if lock_holder(one)} == before


@pytest.mark.slow
def test_a_model_in_the_working_folder_is_found_by_the_service(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import math\nx = math.\n")
    (tmp_path / "m").symlink_to(POCKET_FOLDER)
    result = gesso("infill", "a.py", "--at", "2:10", "--model", "./m", "--service", "--json")
    assert result.exit_code in (0, 1) and json.loads(result.stdout)["model"] == str(tmp_path / "m"), result.stderr
    running = [ServiceClient(one).health().model for one in all_locations() if lock_holder(one)]
    assert str(tmp_path / "m") in running

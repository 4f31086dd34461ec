"""`gesso infill` with a fake completer, and once with the shipped model."""

import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner, Result

from engine.errors import ModelError
from infill.cli.main import app
from infill.complete.pipeline import AnyModel
from infill.request import Hole, InfillRequest, Neighbour
from infill.settings import Settings
from tests.infill.fake_completer import FakeCompleter
from tests.infill.fakes import scripted_completer
from tests.infill.tiny_coder import coder

KEYS = [
    "text",
    "shown",
    "reason",
    "confidence",
    "candidates",
    "tokens",
    "steps",
    "prompt_tokens",
    "encoded_tokens",
    "canvas",
    "hole",
    "timings_ms",
    "model",
    "seed",
]
SOURCE = "def f(a):\n    return ??\n\nx = ??\n"


@pytest.fixture
def completer(monkeypatch: pytest.MonkeyPatch) -> FakeCompleter:
    fake = FakeCompleter(lambda request, hole: (f"a + {hole}", None))
    monkeypatch.setattr("infill.cli.support.load_completer", lambda settings: fake)
    return fake


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "app.py"
    path.write_bytes(SOURCE.encode())
    return path


def gesso(*arguments: str | Path, given: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["infill", *map(str, arguments)], input=given)


def refuse_second(request: InfillRequest, hole: int) -> tuple[str, str | None]:
    return f"a + {hole}", None if hole == 0 else "too unsure"


def refuse_all(request: InfillRequest, hole: int) -> tuple[str, str | None]:
    return "weak", "too unsure"


def test_standard_output_is_exactly_the_text(completer: FakeCompleter, file: Path) -> None:
    result = gesso(file, "--at", "2:12")
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, b"a + 0", "")
    assert completer.requests == [InfillRequest(SOURCE, (Hole(21, 21),), None, "app.py")]


def test_line_ends_and_characters_are_not_changed(completer: FakeCompleter, file: Path) -> None:
    completer.answer = lambda request, hole: ("é\r\n\ty\r\n", None)
    file.write_bytes("# ü\r\nx\r\n".encode())
    assert gesso(file, "--at", "2:1").stdout_bytes == "é\r\n\ty\r\n".encode()
    assert gesso(file, "--at", "2:1", "--whole").stdout_bytes == "# ü\r\né\r\n\ty\r\nx\r\n".encode()


def test_options_reach_the_request(completer: FakeCompleter, file: Path, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("y = 1\n")
    options = "--lines block --candidates 2 --steps 5 --seed 3 --deadline-ms 80 --lang rs --context other.py"
    result = gesso(file, "--range", "1:1-2:1", *options.split())
    assert result.exit_code == 0
    neighbours = (Neighbour("other.py", "y = 1\n"),)
    expected = InfillRequest(SOURCE, (Hole(0, 10),), "rust", "app.py", "block", 2, 5, 3, 80.0, neighbours)
    assert completer.requests == [expected]
    assert "candidate 2 (copy, 0.25, not shown: copied): 'other'" in result.stderr


def test_the_settings_of_the_files_project_apply(completer: FakeCompleter, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "gesso.toml").write_text("seed = 11\nsteps = 2\n")
    (folder / "b.py").write_text("x\n")
    gesso(folder / "b.py", "--at", "1:1", "--steps", "4")
    assert (completer.requests[0].seed, completer.requests[0].steps) == (11, 4)
    assert completer.requests[0].path == "project/b.py"


def test_markers_are_filled_together(completer: FakeCompleter, file: Path) -> None:
    result = gesso(file, "--marker", "??", "--whole")
    assert result.stdout == "def f(a):\n    return a + 0\n\nx = a + 1\n"
    assert [len(request.holes) for request in completer.requests] == [2]
    assert gesso(file, "--marker", "??").stdout == "a + 0\na + 1\n"


def test_a_diff_names_the_file_and_the_change(completer: FakeCompleter, file: Path) -> None:
    lines = gesso(file, "--marker", "??", "--diff").stdout.splitlines()
    assert lines[:2] == ["--- a/app.py", "+++ b/app.py"]
    assert "-x = ??" in lines and "+x = a + 1" in lines
    assert file.read_text() == SOURCE


def test_in_place_writes_and_prints_nothing(completer: FakeCompleter, file: Path) -> None:
    result = gesso(file, "--marker", "??", "--in-place")
    assert (result.exit_code, result.stdout) == (0, "")
    assert file.read_text() == "def f(a):\n    return a + 0\n\nx = a + 1\n"
    assert "filled 2 of 2 holes" in result.stderr


def test_a_weak_candidate_is_neither_printed_nor_written(completer: FakeCompleter, file: Path) -> None:
    completer.answer = refuse_all
    for form in ((), ("--whole",), ("--diff",), ("--in-place",)):
        result = gesso(file, "--at", "2:12", *form)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "gesso: nothing good enough to show: too unsure\n"
    assert file.read_text() == SOURCE


def test_any_prints_and_force_writes_a_weak_candidate_with_exit_code_1(completer: FakeCompleter, file: Path) -> None:
    completer.answer = refuse_all
    shown = gesso(file, "--at", "4:5", "--any")
    assert (shown.exit_code, shown.stdout) == (1, "weak")
    assert gesso(file, "--at", "4:5", "--any", "--in-place").exit_code == 1
    assert file.read_text() == SOURCE
    assert gesso(file, "--at", "4:5", "--in-place", "--force").exit_code == 1
    assert file.read_text() == "def f(a):\n    return ??\n\nx = weak??\n"


def test_only_holes_with_a_good_candidate_are_filled(completer: FakeCompleter, file: Path) -> None:
    completer.answer = refuse_second
    result = gesso(file, "--marker", "??", "--in-place")
    assert result.exit_code == 1
    assert file.read_text() == "def f(a):\n    return a + 0\n\nx = ??\n"
    assert "nothing good enough to show at 4:5: too unsure" in result.stderr


def test_json_has_exactly_these_keys(completer: FakeCompleter, file: Path) -> None:
    result = gesso(file, "--at", "2:12", "--json", "--candidates", "2")
    answer = json.loads(result.stdout)
    assert list(answer) == KEYS and result.stderr == ""
    assert answer["candidates"][1] == {
        "text": "other",
        "confidence": 0.25,
        "shown": False,
        "reason": "copied",
        "source": "copy",
        "tokens": 1,
        "beginning": False,
    }
    values = {name: answer[name] for name in ("text", "shown", "reason", "tokens", "steps", "canvas", "hole")}
    assert values == {
        "text": "a + 0",
        "shown": True,
        "reason": None,
        "tokens": 3,
        "steps": 2,
        "canvas": 64,
        "hole": 16,
    }
    assert answer["timings_ms"] == {"denoise": 1.23, "total": 2.0}


def test_json_describes_each_hole(completer: FakeCompleter, file: Path) -> None:
    completer.answer = refuse_second
    result = gesso(file, "--marker", "??", "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == 1 and list(answer) == [*KEYS, "holes"]
    assert [(hole["at"], hole["text"], hole["reason"]) for hole in answer["holes"]] == [
        ("2:12", "a + 0", None),
        ("4:5", "a + 1", "too unsure"),
    ]


def test_json_and_in_place_can_be_combined(completer: FakeCompleter, file: Path) -> None:
    result = gesso(file, "--marker", "??", "--json", "--in-place")
    assert json.loads(result.stdout)["shown"] and "a + 1" in file.read_text()


def test_standard_input_is_read_with_a_language(completer: FakeCompleter) -> None:
    result = gesso("-", "--lang", "go", "--at", "1:3", "--whole", given="a\u00e9\n".encode())
    assert result.stdout == "a\u00e9a + 0\n" and result.stderr == ""
    assert completer.requests[0] == InfillRequest("a\u00e9\n", (Hole(2, 2),), "go", None)
    assert "as plain text" in gesso("-", "--at", "1:1", given=b"x").stderr


def test_watching_without_a_terminal_prints_the_final_text_only(completer: FakeCompleter, file: Path) -> None:
    result = gesso(file, "--at", "2:12", "--watch")
    assert (result.stdout, result.stderr) == ("a + 0", "")


def test_a_picture_is_written_without_a_live_view(completer: FakeCompleter, file: Path, tmp_path: Path) -> None:
    result = gesso(file, "--at", "2:12", "--watch-svg", tmp_path / "a.svg")
    assert (result.stdout, result.stderr) == ("a + 0", "")
    assert "<svg" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("app.py", "exactly one of --at LINE:COL, --range"),
        ("app.py --at 1:1 --marker x", "exactly one of --at LINE:COL, --range"),
        ("app.py --at 99:1", "There is no line 99"),
        ("app.py --at 1:1 --whole --diff", "--whole and --diff cannot be combined"),
        ("app.py --at 1:1 --force", "--force needs --in-place"),
        ("- --at 1:1 --in-place", "Standard input cannot be written in place"),
        ("app.py --at 1:1 --lang klingon", "There is no language 'klingon'; use one of python"),
        ("app.py --at 1:1 --lines two", '--lines is "two"; it must be one of one, block, auto'),
        ("app.py --at 1:1 --steps 0", "--steps is 0"),
        ("app.py --at 1:1 --candidates 99", "--candidates is 99"),
        ("app.py --marker absent", "does not contain the marker 'absent'"),
    ],
)
def test_a_usage_error_is_one_sentence_and_exit_code_2(
    completer: FakeCompleter, file: Path, arguments: str, sentence: str
) -> None:
    result = gesso(*arguments.split(), given=b"x")
    assert result.exit_code == 2 and sentence in result.stderr and result.stdout == ""
    assert result.stderr.count("\n") == 1 and completer.requests == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("absent.py --at 1:1", "There is no file absent.py"),
        ("binary.py --at 1:1", "binary.py is not UTF-8 text (line 1)"),
        ("app.py --at 1:1 --context binary.py", "binary.py is not UTF-8 text"),
    ],
)
def test_an_unusable_input_is_exit_code_3(completer: FakeCompleter, file: Path, arguments: str, sentence: str) -> None:
    file.with_name("binary.py").write_bytes(b"\xe9\0\0")
    result = gesso(*arguments.split())
    assert result.exit_code == 3 and sentence in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ModelError("The weights are gone."), 3, "gesso: The weights are gone."),
        (MemoryError(), 3, "Out of memory"),
        (RuntimeError("odd"), 3, "a bug in Gesso"),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_an_error_while_filling_has_an_exit_code(
    completer: FakeCompleter, file: Path, error: BaseException, code: int, sentence: str
) -> None:
    def fail(request: InfillRequest, hole: int) -> tuple[str, str | None]:
        raise error

    completer.answer = fail
    result = gesso(file, "--at", "1:1", "--in-place")
    assert result.exit_code == code and sentence in result.stderr
    assert file.read_text() == SOURCE


def test_the_shipped_model_answers_with_the_same_object(file: Path) -> None:
    arguments: list[Any] = [file, "--at", "2:12", "--json", "--steps", "2"]
    result = gesso(*arguments)
    assert result.exit_code in (0, 1), result.stderr
    answer = json.loads(result.stdout)
    assert list(answer) == KEYS and answer["model"] == "pocket" and answer["prompt_tokens"] > 0
    assert json.loads(gesso(*arguments).stdout)["text"] == answer["text"]


def test_a_refused_text_is_written_again_by_the_retry_model(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("x = ")
    loaded: list[str] = []

    def load(settings: Settings) -> AnyModel:
        loaded.append(settings.model)
        return coder("x = first\n").model

    monkeypatch.setattr("infill.cli.support.load_completer", lambda settings: scripted_completer("(1"))
    monkeypatch.setattr("infill.complete.pipeline.load_model", load)
    monkeypatch.setenv("GESSO_MIN_CONFIDENCE", "0")
    plain = gesso(file, "--at", "1:5", "--json", "--no-service")
    assert plain.exit_code == 1 and list(json.loads(plain.stdout)) == KEYS and not loaded
    monkeypatch.setenv("GESSO_RETRY_MODEL", "coder")
    picture = file.with_suffix(".svg")
    result = gesso(file, "--at", "1:5", "--json", "--watch-svg", picture, "--no-service")
    answer = json.loads(result.stdout)
    assert result.exit_code == 0 and list(answer) == KEYS and loaded == ["coder"]
    assert (answer["text"], answer["model"]) == ("first", "tiny")
    assert json.loads(plain.stdout)["candidates"][0].keys() == answer["candidates"][0].keys()
    assert "first" in picture.read_text()


def test_a_retry_model_that_is_missing_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("x = ")
    monkeypatch.setattr("infill.cli.support.load_completer", lambda settings: scripted_completer("(1"))
    monkeypatch.setenv("GESSO_RETRY_MODEL", str(file.parent / "none"))
    result = gesso(file, "--at", "1:5", "--no-service")
    assert result.exit_code == 1 and "Nothing is retried: There is no model folder" in result.stderr


def test_a_secret_is_not_read_under_any_name(completer: FakeCompleter, file: Path) -> None:
    Path(".env").write_text("TOKEN=1\n")
    Path("link.py").symlink_to(".env")
    for arguments in ((".env", "--at", "1:1"), ("link.py", "--at", "1:1"), (file, "--at", "1:1", "--context", ".env")):
        result = gesso(*arguments)
        assert result.exit_code == 3 and "may hold secrets" in result.stderr and "TOKEN" not in result.output
    assert not completer.requests


def test_a_named_file_is_read_even_if_git_ignores_it(completer: FakeCompleter, file: Path) -> None:
    Path(".git").mkdir()
    Path(".gitignore").write_text("*.py\n")
    Path("other.py").write_text("x = 1\n")
    assert gesso(file, "--at", "2:12", "--context", file.parent / "other.py").exit_code == 0
    assert completer.requests[0].neighbours == (Neighbour("other.py", "x = 1\n"),)
    Path("link.txt").symlink_to("other.py")
    result = gesso("link.txt", "--at", "1:1")
    assert result.exit_code == 3 and "ignored by .gitignore" in result.stderr


def test_names_that_cannot_be_opened_are_errors_in_one_sentence(completer: FakeCompleter, file: Path) -> None:
    (file.parent / "loop.py").symlink_to("loop.py")
    for name in ("loop.py", "a" * 300, "app.py/inner", "pipe"):
        if name == "pipe":
            os.mkfifo(file.parent / name)
        result = gesso(name, "--at", "1:1")
        assert result.exit_code == 3 and result.stderr.count("\n") == 1, result.stderr
    result = gesso(file, "--at", "1:1", "--watch-svg", "no-folder/x.svg")
    assert result.exit_code == 3 and "x.svg cannot be written" in result.stderr


def test_a_name_that_is_not_utf_8_is_filled_in_place(completer: FakeCompleter, file: Path) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    (file.parent / name).write_text("x = \n")
    assert gesso(name, "--at", "1:5", "--in-place").exit_code == 0
    assert (file.parent / name).read_text() == "x = a + 0\n"


def test_many_holes_are_counted_while_they_are_filled(
    completer: FakeCompleter, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completer, "complete", Mock(wraps=completer.complete))
    assert gesso(file, "--marker", "??").exit_code == 0
    assert completer.complete.call_args.args[1] is not None  # type: ignore[attr-defined]
    gesso(file, "--at", "1:1")
    assert completer.complete.call_args.args[1] is None  # type: ignore[attr-defined]

"""`gesso`: help, version, batch, config, doctor and model."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from infill import model_store, settings
from infill.cli.main import app
from infill.request import InfillRequest
from tests.infill.fake_completer import FakeCompleter

ROOT = Path(__file__).parents[3]


def gesso(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def process(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "infill", *arguments]
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["infill", "batch", "model", "doctor", "config", "Exit codes"]),
        (["infill", "--help"], ["--at", "--range", "--marker", "--in-place", "gesso infill app.py --at 12:5"]),
        (["batch", "--help"], ["IN.jsonl", '"prefix"']),
        (["model", "--help"], ["list", "pull", "verify", "path"]),
    ],
)
def test_help_names_commands_and_options(arguments: list[str], words: list[str]) -> None:
    result = gesso(*arguments)
    assert result.exit_code == 0
    assert [word for word in words if word not in result.stdout] == []
    assert "svg" not in result.stdout


def test_help_imports_nothing_slow() -> None:
    names = "[name for name in ('torch', 'transformers', 'numpy') if name in sys.modules]"
    script = f"import sys, infill.cli.main; print({names})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_module_is_the_command() -> None:
    assert process("--version").stdout.startswith(b"gesso ")
    assert process("--no-such-option").returncode == 2
    assert process("infill", "x.py").returncode == 2
    assert process("infill", "no-such-file.py", "--at", "1:1").returncode == 3
    answer = process("infill", "-", "--at", "1:1", given=b"\xff\0\xff")
    assert answer.returncode == 3 and b"gesso: Standard input is not UTF-8" in answer.stderr
    assert answer.stdout == b"" and answer.stderr.count(b"\n") == 1


@pytest.mark.parametrize("arguments", ["model path", "--help", "serve --help", "infill --help", "--version", "config"])
def test_a_closed_pipe_is_not_an_error(arguments: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "infill", *arguments.split()]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_config_names_the_source_of_each_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gesso.toml").write_text("seed = 7\n")
    monkeypatch.setenv("GESSO_LINES", "one")
    monkeypatch.setenv("GESSO_SEDE", "1")
    rows = json.loads(gesso("config", "--json").stdout)
    assert rows["seed"] == {"value": 7, "from": str(tmp_path / "gesso.toml")}
    assert rows["lines"] == {"value": "one", "from": "variable GESSO_LINES"}
    assert rows["model"] == {"value": "pocket", "from": "auto, default"}
    table = gesso("config")
    assert "variable GESSO_LINES" in table.stdout
    assert "Ignoring unknown setting GESSO_SEDE." in table.stderr


def test_an_old_name_of_a_setting_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GESSO_MEANWHILE", "small")
    result = gesso("config", "--json")
    assert json.loads(result.stdout)["fallback_model"]["value"] == "small"
    assert result.stderr.count("GESSO_MEANWHILE is now called GESSO_FALLBACK_MODEL") == 1


def test_config_names_an_invalid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gesso.toml").write_text("seeed = 7\n")
    result = gesso("config")
    assert result.exit_code == 3 and "gesso.toml: there is no setting 'seeed'" in result.stderr


def test_doctor_prints_text_and_json() -> None:
    shown = gesso("doctor")
    assert shown.exit_code == 0 and "pocket" in shown.stdout and "runs on" in shown.stdout
    assert json.loads(gesso("doctor", "--json").stdout)["models"][0]["model"] == "pocket"


def test_model_path_and_verify_of_the_shipped_model() -> None:
    assert gesso("model", "path").stdout == f"{model_store.POCKET_FOLDER}\n"
    result = gesso("model", "verify")
    assert result.exit_code == 0 and "config.json" in result.stdout


def test_model_verify_fails_for_a_damaged_model(tmp_path: Path) -> None:
    for file in model_store.POCKET_FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = next(tmp_path.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    result = gesso("model", "verify", tmp_path)
    assert result.exit_code == 3
    assert f"{shard} differs from the published file" in result.stdout and "is damaged" in result.stderr


def test_model_errors_have_exit_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GESSO_OFFLINE", "true")
    refused = gesso("model", "pull", "26b")
    assert refused.exit_code == 3 and "offline" in refused.stderr
    assert gesso("model", "path", "pocked").exit_code == 2


def test_model_list_names_the_shipped_model() -> None:
    assert "pocket" in gesso("model", "list").stdout


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "in.jsonl"
    lines = [{"id": n, "language": "python", "prefix": f"x{n} = ", "suffix": "\n"} for n in range(5)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_batch_fills_each_row_once(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    completer = FakeCompleter(lambda request, hole: ("1", None))
    monkeypatch.setattr("infill.cli.support.load_completer", lambda settings: completer)
    out = tmp_path / "out.jsonl"
    result = gesso("batch", rows, out, "--batch-size", "3", "--seed", "4")
    assert (result.exit_code, result.stdout) == (0, "")
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == list(range(5))
    assert completer.batches == [3, 2] and {request.seed for request in completer.requests} == {4}
    again = gesso("batch", rows, out)
    assert again.exit_code == 0 and "all 5 rows" in again.stderr and completer.batches == [3, 2]


def test_an_interrupted_batch_says_how_to_resume(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: object, hole: int) -> tuple[str, str | None]:
        if len(completer.requests) > 3:
            raise KeyboardInterrupt
        return "1", None

    completer = FakeCompleter(answer)
    monkeypatch.setattr("infill.cli.support.load_completer", lambda settings: completer)
    out = tmp_path / "out.jsonl"
    result = gesso("batch", rows, out, "--batch-size", "2")
    assert result.exit_code == 130 and "Stopped with 2 of 5 rows done" in result.stderr
    assert len(out.read_text().splitlines()) == 2
    completer.requests.clear()
    completer.answer = lambda request, hole: ("1", None)
    resumed = gesso("batch", rows, out)
    assert resumed.exit_code == 0 and "has 2 of 5 rows" in resumed.stderr
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == list(range(5))


def test_batch_without_input_is_an_error(tmp_path: Path) -> None:
    assert gesso("batch", tmp_path / "absent.jsonl", tmp_path / "out.jsonl").exit_code == 3


def test_a_batch_with_failures_exits_with_1_and_a_count(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: InfillRequest, hole: int) -> tuple[str, str | None]:
        if request.text.startswith("x1"):
            raise RuntimeError("strange")
        return "1", None

    completer = FakeCompleter(answer)
    monkeypatch.setattr("infill.cli.support.load_completer", lambda settings: completer)
    out = tmp_path / "out.jsonl"
    result = gesso("batch", rows, out)
    assert result.exit_code == 1 and "all 5 rows; 1 of them failed, run the same command again" in result.stderr
    completer.answer = lambda request, hole: ("2", None)
    again = gesso("batch", rows, out)
    assert again.exit_code == 0 and f"failed rows of {out} again: 1." in again.stderr
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == ["1", "2", "1", "1", "1"]
    rows.write_text(rows.read_text() + "nonsense\n")
    unusable = gesso("batch", rows, out)
    assert unusable.exit_code == 1 and "all 6 rows; 1 of them cannot be used" in unusable.stderr
    assert gesso("batch", rows, out).exit_code == 1


@pytest.mark.parametrize("columns", ["24", "40", "70"])
def test_config_shows_whole_names_and_values_in_a_narrow_terminal(
    columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", columns)
    shown = gesso("config").stdout
    assert "…" not in shown
    assert [name for name in settings.HELP if name not in shown] == []


def test_help_shows_flags_without_a_type() -> None:
    for command in ("infill", "lint", "batch", "serve", "config"):
        shown = gesso(command, "--help").stdout
        assert "--help" in shown and "bool" not in shown


def test_the_shell_completes_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "_GESSO_COMPLETE": "complete_bash", "COMP_WORDS": "gesso in", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "infill"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "infill"


def test_help_keeps_what_is_in_square_brackets() -> None:
    """Of every command, word by word."""

    def commands(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
        for one in group.registered_commands:
            assert one.callback is not None
            yield (*path, one.name or one.callback.__name__), one.help or one.callback.__doc__ or ""
        for inner in group.registered_groups:
            assert inner.typer_instance is not None and inner.name is not None
            yield from commands(inner.typer_instance, (*path, inner.name))

    found = dict(commands(app))
    assert "[tool.gesso]" in found[("config",)] and ("model", "verify") in found
    for path, help_ in found.items():
        shown = "".join(gesso(*path, "--help").stdout.split())
        assert [word for word in help_.replace("\b", "").split() if word not in shown] == [], path


def test_an_endless_input_is_read_up_to_a_bound() -> None:
    command = [sys.executable, "-m", "infill", "infill", "-", "--at", "1:1"]
    with Path("/dev/zero").open("rb") as endless:
        done = subprocess.run(command, cwd=ROOT, stdin=endless, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "gesso: Standard input has more than 8 MiB; send a shorter text.\n"


def test_model_verify_lists_every_file_without_a_list_of_sums(tmp_path: Path) -> None:
    for file in model_store.POCKET_FOLDER.iterdir():
        if file.name != "SHA256SUMS":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    result = gesso("model", "verify", tmp_path)
    assert result.exit_code == 0
    assert {line.split()[0] for line in result.stdout.splitlines()} == {file.name for file in tmp_path.iterdir()}
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes()[:-100])
    result = gesso("model", "verify", tmp_path)
    assert result.exit_code == 3 and f"{tokenizer} is not a JSON object" in result.stdout

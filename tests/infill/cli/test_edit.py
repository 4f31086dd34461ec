"""`gesso edit` with a model that writes given answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infill.cli.main import app
from tests.infill.edit.scripted_rewriter import ScriptedRewriter

SOURCE = "def f(a):\r\n    return a\r\n\r\nx = f(1)\r\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "app.py"
    path.write_bytes(SOURCE.encode())
    return path


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> ScriptedRewriter:
    rewriter = ScriptedRewriter(text)
    monkeypatch.setattr("infill.cli.edit.rewriter_for", lambda settings, service: rewriter.rewrite)
    return rewriter


def gesso(*arguments: str | Path, given: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["edit", *map(str, arguments)], input=given)


@pytest.fixture
def good(monkeypatch: pytest.MonkeyPatch) -> ScriptedRewriter:
    return answer(monkeypatch, "return 2 * a\n```")


def test_standard_output_is_exactly_the_new_text(good: ScriptedRewriter, file: Path) -> None:
    result = gesso(file, "--range", "2:1-3:1", "double it")
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, b"    return 2 * a\r\n", "")
    assert file.read_bytes() == SOURCE.encode()
    assert "double it" in good.prompts[0] and "app.py" in good.prompts[0]


def test_the_whole_file_a_diff_and_the_file_itself(good: ScriptedRewriter, file: Path) -> None:
    changed = SOURCE.replace("return a", "return 2 * a").encode()
    arguments = (file, "--range", "2:5-2:13", "double it")
    assert gesso(*arguments, "--whole").stdout_bytes == changed
    diff = gesso(*arguments, "--diff").stdout
    assert "--- a/app.py" in diff and "+    return 2 * a" in diff and "-    return a" in diff
    result = gesso(*arguments, "--in-place")
    assert (result.exit_code, result.stdout) == (0, "") and "rewritten at 2:5" in result.stderr
    assert file.read_bytes() == changed


@pytest.mark.parametrize(("mark", "encoding"), [("", "latin-1"), ("\ufeff", "utf-8")])
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_whole_file_and_a_diff_have_the_encoding_of_the_file(
    good: ScriptedRewriter, file: Path, mark: str, encoding: str
) -> None:
    before = f"{mark}# é\n{SOURCE}".encode(encoding)
    changed = before.replace(b"return a", b"return 2 * a")
    file.write_bytes(before)
    arguments = (file, "--range", "3:5-3:13", "double it")
    assert gesso(*arguments, "--whole").stdout_bytes == changed
    diff = gesso(*arguments, "--diff").stdout_bytes
    subprocess.run(["git", "apply", "-"], cwd=file.parent, input=diff, check=True)
    assert file.read_bytes() == changed


def test_standard_input(good: ScriptedRewriter, file: Path) -> None:
    result = gesso("-", "--lang", "py", "--range", "2:5-2:13", "double it", given=SOURCE.encode())
    assert (result.exit_code, result.stdout_bytes) == (0, b"return 2 * a")
    assert gesso("-", "--range", "2:5-2:13", "x", "--in-place", given=b"a").exit_code == 2


def test_json(good: ScriptedRewriter, file: Path) -> None:
    value = json.loads(gesso(file, "--range", "2:5-2:13", "double it", "--json").stdout)
    assert (value["text"], value["shown"], value["reason"], value["range"]) == ("return 2 * a", True, None, "2:5-2:13")
    (candidate,) = value["candidates"]
    assert candidate["text"] == "return 2 * a" and candidate["tokens"] > 3
    assert value["model"] == "tiny" and value["timings_ms"]["total"] > 0


def test_a_refused_answer_is_not_printed_or_written(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    answer(monkeypatch, "return a\n```")
    for option in ("--whole", "--diff", "--in-place"):
        result = gesso(file, "--range", "2:1-3:1", "do nothing", option)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "nothing good enough to show: the answer equals the selected code" in result.stderr
    assert file.read_bytes() == SOURCE.encode()
    value = json.loads(gesso(file, "--range", "2:1-3:1", "do nothing", "--json").stdout)
    assert (value["shown"], value["text"]) == (False, "    return a\r\n")


def test_the_new_text_can_be_watched(good: ScriptedRewriter, file: Path) -> None:
    result = gesso(file, "--range", "2:1-3:1", "double it", "--watch")
    assert result.exit_code == 0 and result.stdout_bytes == b"    return 2 * a\r\n"


def test_another_file_is_context(good: ScriptedRewriter, file: Path, tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text("def helper(value):\n    return 3\n")
    gesso(file, "--range", "2:1-3:1", "use the helper", "--context", "b.py")
    assert "def helper" in good.prompts[0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--range", "2:1-3:1"), 2, "INSTRUCTION"),
        (("double it",), 2, "--range"),
        (("--range", "9:1-9:2", "x"), 2, "There is no line 9"),
        (("--range", "2:1-3:1", " "), 2, "The instruction is empty"),
        (("--range", "2:1-3:1", "x", "--whole", "--json"), 2, "cannot be combined"),
        (("--range", "3:1-3:1", "x"), 3, "The range has no code to rewrite"),
        (("--range", "2:1-3:1", "x", "--no-service", "--model", "pocket"), 3, "use coder"),
    ],
)
def test_wrong_usage(
    file: Path, arguments: tuple[str, ...], code: int, message: str, request: pytest.FixtureRequest
) -> None:
    if "pocket" not in arguments:
        request.getfixturevalue("good")
    result = gesso(file, *arguments)
    assert result.exit_code == code and message in result.stderr

"""`gesso lint` with a fake linter."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infill.cli import lint as cli_lint
from infill.cli.main import app
from infill.findings import Finding, LintRequest
from infill.lint.kinds import KINDS
from infill.lint.thresholds import Threshold, Thresholds

CODE = "def f(left, right):\n    return left + left\n"


class FakeLinter:
    """Finds every `+ left` in the requested ranges."""

    can_lint = True
    thresholds = Thresholds({code: Threshold({}, 0.0, {"python": 0.0}) for code in KINDS if code != "copy-paste"})

    def __init__(self) -> None:
        self.requests: list[LintRequest] = []

    def lint(self, request: LintRequest) -> list[Finding]:
        self.requests.append(request)
        at = request.text.find("+ left") + 2
        requested = any(start <= at < end for start, end in request.ranges or ((0, len(request.text)),))
        if at < 2 or not requested or "wrong-name" in request.off:
            return []
        return [Finding(at, at + 4, "wrong-name", "`left` looks wrong; `right` fits better.", "right", 4.0)]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeLinter:
    linter = FakeLinter()
    monkeypatch.setattr(cli_lint, "_linter", lambda model: linter)
    monkeypatch.chdir(tmp_path)
    return linter


def gesso(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, ["lint", *arguments], input=given)


def test_help_lists_the_options() -> None:
    words = ["--diff", "--on", "--explain", "--json", "--sarif", "--github", "--fix", "gesso: ignore", "Exit codes"]
    shown = gesso("--help").stdout
    assert [word for word in words if word not in shown] == []


def test_a_name_of_another_file_is_not_misspelled(fake: FakeLinter, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(0, 4, "misspelled", "`lfet` may be a misspelling of `left`.", "left", 4.0)
    monkeypatch.setattr(fake, "lint", lambda request: [finding] if request.text.startswith("lfet") else [])
    Path("app.py").write_text("lfet = 1\n")
    assert gesso().exit_code == 1
    Path("other.py").write_text("import lfet\n")
    assert gesso().exit_code == 0


def test_findings_are_printed_and_set_the_exit_code(fake: FakeLinter) -> None:
    Path("app.py").write_text(CODE)
    Path("fine.py").write_text("x = 1\n")
    result = gesso()
    assert result.exit_code == 1
    assert result.stdout.startswith("app.py:2:19: wrong-name: ") and result.stdout.endswith("^^^^\n")
    assert "1 finding in 2 files" in result.stderr
    assert [request.language for request in fake.requests] == ["python", "python"]
    clean = gesso("fine.py")
    assert clean.exit_code == 0 and clean.stdout == ""


def test_formats_for_programs(fake: FakeLinter) -> None:
    Path("app.py").write_text(CODE)
    (row,) = json.loads(gesso("--json").stdout)["findings"]
    assert (row["path"], row["code"], row["replacement"], row["score"]) == ("app.py", "wrong-name", "right", 4.0)
    assert json.loads(gesso("--sarif").stdout)["runs"][0]["results"][0]["ruleId"] == "wrong-name"
    assert gesso("--github").stdout.startswith("::notice file=app.py,line=2,")
    Path("app.py").write_text("x = 1\n")
    assert json.loads(gesso("--json").stdout)["findings"] == []


def test_fixes_are_shown_and_written_after_a_yes(fake: FakeLinter) -> None:
    Path("app.py").write_bytes(b"\xef\xbb\xbf" + CODE.replace("\n", "\r\n").encode())
    no = gesso("--fix", "--on", "wrong-name", given="n\n")
    assert no.exit_code == 1 and "+    return left + right" in no.stderr and "Nothing was written" in no.stderr
    assert b"left + left" in Path("app.py").read_bytes()
    yes = gesso("--fix", "--on", "wrong-name", given="y\n")
    assert yes.exit_code == 0 and "Wrote 1 fix in 1 file" in yes.stderr
    assert Path("app.py").read_bytes() == b"\xef\xbb\xbfdef f(left, right):\r\n    return left + right\r\n"
    assert gesso("--fix", "--on", "wrong-name", "--yes").exit_code == 0


def test_nothing_is_written_without_a_yes(fake: FakeLinter) -> None:
    Path("app.py").write_text(CODE)
    gesso("--fix", "--on", "wrong-name", given="")
    assert Path("app.py").read_text() == CODE
    gesso("--fix", "--on", "wrong-name", "--yes")
    assert Path("app.py").read_text() == CODE.replace("+ left", "+ right")


def test_kinds_can_be_switched_off(fake: FakeLinter) -> None:
    Path("app.py").write_text(CODE)
    assert gesso("--off", "wrong-name").exit_code == 0
    unknown = gesso("--off", "wrong-nam")
    assert unknown.exit_code == 2 and "choose from" in unknown.stderr


def test_style_kinds_can_be_switched_on(fake: FakeLinter) -> None:
    Path("app.py").write_text(CODE)
    gesso("--on", "style-naming", "--on", "style-quotes")
    assert fake.requests[-1].on == {"style-naming", "style-quotes"}
    gesso()
    assert fake.requests[-1].on == frozenset()
    assert gesso("--off", "style-naming").exit_code == 1
    wrong = gesso("--on", "style-nam")
    assert wrong.exit_code == 2 and "choose from" in wrong.stderr


def test_fixes_need_the_kind_and_leave_others(fake: FakeLinter) -> None:
    Path("app.py").write_text(CODE)
    unnamed = gesso("--fix", "--yes")
    assert unnamed.exit_code == 2 and "add --on" in unnamed.stderr and fake.requests == []
    other = gesso("--fix", "--on", "missing-self", "--yes")
    assert other.exit_code == 1 and "Wrote" not in other.stderr
    assert Path("app.py").read_text() == CODE


def test_what_was_not_judged_is_counted_and_listed(fake: FakeLinter) -> None:
    Path("app.py").write_text("x = 1\n")
    Path("old.py").write_text("x = 1\ndef f(:\n")
    Path("lib.rs").write_text("const X: u8 = 1;\n")
    Path("main.go").write_text("package main\n")
    Path("bad.py").write_bytes(b"x = '\0\xff'\n")
    Path("generated.py").write_text("# Code generated by protoc. DO NOT EDIT.\nx = 1\n")
    result = gesso("--off", "misspelled")
    assert result.exit_code == 0 and sorted(Path(one.path or "").name for one in fake.requests) == ["app.py", "old.py"]
    assert "0 findings in 2 files." in result.stderr
    words = "2 files (another language: go, rust)", "parts of 1 file (syntax errors)", "1 file (unreadable)"
    assert all(
        one in result.stderr
        for one in (*words, "1 file (generated or third-party code)", "2 kinds (misspelled, copy-paste)")
    )
    content = json.loads(gesso("--json").stdout)
    assert content["judgedFiles"] == 2 and content["kindsOff"] == ["copy-paste"]
    reasons = {one["path"]: (one["reason"], one["language"], one["inPart"]) for one in content["notJudged"]}
    assert reasons["lib.rs"] == ("another language", "rust", False)
    assert reasons["old.py"] == ("syntax errors", None, True) and len(reasons) == 5
    (invocation,) = json.loads(gesso("--sarif").stdout)["runs"][0]["invocations"]
    notes = [one["message"]["text"] for one in invocation["toolExecutionNotifications"]]
    assert "Not judged: another language." in notes and "Not judged in part: syntax errors." in notes


def test_style_is_judged_in_every_language(fake: FakeLinter) -> None:
    Path("lib.rs").write_text("const X: u8 = 1;\n")
    result = gesso("--on", "style-naming")
    assert "0 findings in 1 file." in result.stderr and "another language" not in result.stderr


def test_a_rename_changes_all_positions_unless_another_file_has_the_name(
    fake: FakeLinter, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "def f(rows):\n    rowCount = 1\n    return rowCount\n"
    first, last = text.index("rowCount"), text.rindex("rowCount")
    found = Finding(first, first + 8, "style-naming", "Not so.", "row_count", 1.0, ((last, last + 8),))
    monkeypatch.setattr(fake, "lint", lambda request: [found] if request.text == text else [])
    Path("app.py").write_text(text)
    (row,) = json.loads(gesso("--json").stdout)["findings"]
    assert row["also"] == [{"start": {"line": 3, "column": 12}, "end": {"line": 3, "column": 20}}]
    assert "explanation" not in row
    (result,) = json.loads(gesso("--sarif").stdout)["runs"][0]["results"]
    assert len(result["fixes"][0]["artifactChanges"][0]["replacements"]) == 2
    gesso("--fix", "--on", "style-naming", "--yes")
    assert Path("app.py").read_text() == text.replace("rowCount", "row_count")
    Path("app.py").write_text(text)
    Path("other.py").write_text("rowCount = 2\n")
    assert gesso().exit_code == 0


class FakeExplainer(FakeLinter):
    """Explains the findings of a request; only finds any if `can_lint`."""

    def __init__(self, can_lint: bool) -> None:
        super().__init__()
        self.can_lint = can_lint

    def lint(self, request: LintRequest) -> list[Finding]:
        if not request.explain:
            assert self.can_lint
            return super().lint(request)
        self.requests.append(request)
        return [replace(one, explanation="It is on the other side.") for one in request.findings]


@pytest.mark.parametrize("can_lint", [True, False])
def test_a_model_explains_its_findings_or_those_without_a_model(
    fake: FakeLinter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, can_lint: bool
) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "config.json").write_text("{}")
    explainer = FakeExplainer(can_lint)
    monkeypatch.setattr("infill.cli.support.load_completer", lambda settings: None)
    monkeypatch.setattr("infill.lint.linter.Linter", lambda completer: explainer)
    Path("app.py").write_text(CODE)
    Path("fine.py").write_text("x = 1\n")
    result = gesso("--explain", "--model", str(tmp_path / "large"))
    assert result.exit_code == 1 and result.stdout.endswith("^^^^\n    It is on the other side.\n")
    assert bool(fake.requests) is not can_lint
    assert [len(one.findings) for one in explainer.requests if one.explain] == [1], "no explanations without findings"
    (row,) = json.loads(gesso("--explain", "--model", str(tmp_path / "large"), "--json").stdout)["findings"]
    assert row["explanation"] == "It is on the other side."
    assert "fits better. It is on" in gesso("--explain", "--model", str(tmp_path / "large"), "--github").stdout


def test_a_model_that_cannot_explain_is_refused_before_loading(
    fake: FakeLinter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infill.cli.support.load_completer", lambda settings: pytest.fail("loaded"))
    Path("app.py").write_text(CODE)
    result = gesso("--explain")
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and "pocket does not follow instructions" in result.stderr


def test_only_changed_lines(fake: FakeLinter, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("app.py").write_text(CODE + "y = 1\n")
    Path("other.py").write_text(CODE)
    changed = {Path("app.py").resolve(): [range(3, 4)]}
    monkeypatch.setattr("infill.lint.files.changed_lines", lambda revision, paths: changed)
    assert gesso("--diff", "main").exit_code == 0
    assert [request.ranges for request in fake.requests] == [((len(CODE), len(CODE) + 6),)]
    changed[Path("app.py").resolve()] = [range(2, 3)]
    assert gesso("--diff", "main").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json", "--sarif"], "exclude each other"),
        (["--yes"], "add --fix"),
        (["--diff", "main"], "not in a git repository"),
    ],
)
def test_bad_options(fake: FakeLinter, arguments: list[str], words: str) -> None:
    Path("app.py").write_text(CODE)
    result = gesso(*arguments)
    assert result.exit_code == 2 and words in result.stderr


def test_unreadable_files(fake: FakeLinter) -> None:
    Path("bad.py").write_bytes(b"\xff\0\0")
    Path("app.py").write_text(CODE)
    assert gesso("no-such-file.py").exit_code == 3
    assert gesso("bad.py").exit_code == 3
    skipped = gesso(".")
    assert skipped.exit_code == 1 and "not UTF-8" in skipped.stderr


def test_without_a_code_model_only_what_the_tree_shows_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("app.py").write_text(
        "class A:\n    def f(self):\n        self.total = 1\n\n    def g(self):\n        return total\n"
    )
    monkeypatch.setattr("infill.cli.support.load_completer", lambda settings: pytest.fail("loaded"))
    result = gesso("--model", "pocket", "--no-service")
    assert result.exit_code == 1 and "missing-self" in result.stdout
    assert "`gesso model pull coder`" in result.stderr and "wrong-name" in result.stderr


def test_fixes_that_break_the_syntax_are_not_written(fake: FakeLinter, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Finding(0, 1, "wrong-name", "Not so.", "(", 1.0)
    monkeypatch.setattr(fake, "lint", lambda request: [broken])
    Path("app.py").write_text("x = 1\n")
    result = gesso("--fix", "--on", "wrong-name", "--yes")
    assert result.exit_code == 3 and "break its syntax" in result.stderr
    assert Path("app.py").read_text() == "x = 1\n"


def test_fixes_do_not_leave_the_given_folder(fake: FakeLinter) -> None:
    Path("tree").mkdir()
    Path("outside.py").write_text(CODE)
    Path("tree/link.py").symlink_to(Path("outside.py").resolve())
    assert gesso("tree", "--fix", "--on", "wrong-name", "--yes").exit_code == 0
    assert fake.requests == [] and Path("outside.py").read_text() == CODE


def test_a_diff_cannot_control_the_terminal_or_a_runner(fake: FakeLinter) -> None:
    Path("app.py").write_text("::error::\x1b[2J\n" + CODE)
    result = gesso("--fix", "--on", "wrong-name", given="n\n")
    assert "\\::error::␛[2J\n" in result.stderr and "\x1b" not in result.stderr + result.stdout


def test_standard_input_is_linted(fake: FakeLinter) -> None:
    result = gesso("-", "--lang", "python", given=CODE)
    assert result.exit_code == 1 and result.stdout.startswith("stdin:2:19: wrong-name: ")
    assert "1 finding in 1 file" in result.stderr
    script = gesso("-", given="#!/usr/bin/env python3\n" + CODE)
    assert script.exit_code == 1 and fake.requests[-1].language == "python"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-",), "name it with --lang"),
        (("-", "app.py"), "excludes other paths"),
        (("-", "--lang", "python", "--fix", "--on", "wrong-name"), "excludes other paths, --fix"),
        (("-", "--lang", "python", "--diff", "main"), "excludes other paths, --fix and --diff"),
        (("-", "--lang", "klingon"), "There is no language 'klingon'"),
        (("app.py", "--lang", "python"), "give - as the path"),
        (("app.py", "--encoding", "no-such"), "There is no encoding 'no-such'"),
    ],
)
def test_options_that_do_not_fit_standard_input_are_wrong_usage(
    fake: FakeLinter, arguments: tuple[str, ...], sentence: str
) -> None:
    Path("app.py").write_text(CODE)
    result = gesso(*arguments, given=CODE)
    assert result.exit_code == 2 and sentence in result.stderr


def test_a_fixed_file_keeps_its_encoding(fake: FakeLinter) -> None:
    Path("app.py").write_bytes(("# é\n" + CODE).encode("latin-1"))
    result = gesso("--fix", "--on", "wrong-name", "--yes")
    assert result.exit_code == 0 and "app.py is not UTF-8; treating it as Latin-1" in result.stderr
    assert Path("app.py").read_bytes() == ("# é\n" + CODE).encode("latin-1").replace(b"+ left", b"+ right")

"""Findings as text, JSON, SARIF and GitHub annotations."""

import json
from pathlib import Path

from infill.findings import Finding
from infill.lint.coverage import Coverage
from infill.lint.kinds import ALL_KINDS, ON_BY_DEFAULT
from infill.lint.report import as_github, as_json, as_sarif, as_text, locate

TEXT = "def f(a, b):\r\n\treturn a\r\nx = g(1,\r\n  2)\r\n"


def located() -> list:
    at, call = TEXT.index("return a") + 7, TEXT.index("1,")
    findings = [
        Finding(at, at + 1, "wrong-name", "`a` looks like 100% the wrong name,\nno: `b`.", "b", 3.5),
        Finding(call, TEXT.index("2)") + 1, "swapped-arguments", "Swapped.", "2,\r\n  1", 2.0),
    ]
    return locate(Path("src/app.py"), TEXT, findings)


def test_positions_count_from_one() -> None:
    first, second = located()
    assert (first.line, first.column, first.end_line, first.end_column) == (2, 9, 2, 10)
    assert (second.line, second.column, second.end_line, second.end_column) == (3, 7, 4, 4)


def test_text_underlines_the_finding() -> None:
    lines = as_text(located()).split("\n")
    assert lines[0].startswith("src/app.py:2:9: wrong-name: `a`")
    index = next(number for number, line in enumerate(lines) if line.endswith("return a"))
    assert lines[index + 1] == "    \t       ^"
    assert "\r" not in as_text(located())


def test_json_fields() -> None:
    rows = json.loads(as_json(located(), Coverage()))["findings"]
    assert rows[0] == {
        "path": "src/app.py",
        "range": {"start": {"line": 2, "column": 9}, "end": {"line": 2, "column": 10}},
        "code": "wrong-name",
        "message": "`a` looks like 100% the wrong name,\nno: `b`.",
        "replacement": "b",
        "score": 3.5,
    }
    assert json.loads(as_json([], Coverage()))["findings"] == []


def test_sarif_results_have_a_rule_and_a_fix() -> None:
    log = json.loads(as_sarif(located(), "1.2", Coverage()))
    run = log["runs"][0]
    assert log["version"] == "2.1.0" and run["tool"]["driver"]["version"] == "1.2"
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    change = run["results"][1]["fixes"][0]["artifactChanges"][0]["replacements"][0]
    assert change["insertedContent"]["text"] == "2,\r\n  1"
    assert change["deletedRegion"] == {"startLine": 3, "startColumn": 7, "endLine": 4, "endColumn": 4}


def test_every_kind_is_a_rule_with_help() -> None:
    rules = {
        one["id"]: one for one in json.loads(as_sarif([], "1.2", Coverage()))["runs"][0]["tool"]["driver"]["rules"]
    }
    assert set(rules) == set(ALL_KINDS)
    for code, rule in rules.items():
        assert rule["helpUri"].endswith(f"#{code}") and "```" in rule["help"]["markdown"]
        assert rule["defaultConfiguration"]["enabled"] is (code in ON_BY_DEFAULT)


def test_other_ranges_and_the_explanation_are_reported() -> None:
    (one,) = locate(Path("a.py"), TEXT, [Finding(0, 3, "style-naming", "So.", "x", 1.0, ((4, 5), (6, 7)), "As it is.")])
    assert [(more.line, more.column) for more in one.also] == [(1, 5), (1, 7)]
    (result,) = json.loads(as_sarif([one], "1.2", Coverage()))["runs"][0]["results"]
    changes = result["fixes"][0]["artifactChanges"][0]["replacements"]
    assert [change["deletedRegion"]["startColumn"] for change in changes] == [1, 5, 7]
    assert result["message"]["text"] == "So. As it is." and result["properties"]["explanation"] == "As it is."
    assert as_text([one]).endswith("^^^\n    As it is.\n") and as_github([one]).endswith("::So. As it is.\n")
    (row,) = json.loads(as_json([one], Coverage()))["findings"]
    assert row["explanation"] == "As it is." and len(row["also"]) == 2


def test_annotations_are_escaped() -> None:
    lines = as_github(located()).split("\n")
    assert len(lines) == 3
    assert lines[0].startswith("::notice file=src/app.py,line=2,endLine=2,col=9,endColumn=10,title=gesso wrong-name::")
    assert lines[0].endswith("100%25 the wrong name,%0Ano: `b`.")


HOSTILE = Path("a\x1b[2J\n::error file=x::b\udcff %.py")


def hostile() -> list:
    text = "::error::\u202etfel + \x9bleft\n"
    at = text.index("left")
    return locate(HOSTILE, text, [Finding(at, at + 4, "wrong-name", "no\r\n::error::\x1b", "b", 1.0)])


def test_text_cannot_control_the_terminal_or_a_runner() -> None:
    head, source, marks = as_text(hostile()).splitlines()
    assert head == "a␛[2J␊::error file=x::b<U+DCFF> %.py:1:19: wrong-name: no␍␊::error::␛"
    assert source == "    \\::error::<U+202E>tfel + <U+009B>left"
    assert marks.index("^") == source.index("left") - 1 and marks.count("^") == 4, "a backslash is added afterwards"


def test_annotations_are_one_command_each() -> None:
    (line,) = as_github(hostile()).splitlines()
    assert line.startswith("::notice file=a␛[2J%0A%3A%3Aerror file=x%3A%3Ab<U+DCFF> %25.py,line=1,")
    assert line.endswith("::no%0D%0A::error::␛")


def test_sarif_has_uris() -> None:
    def uri(path: Path) -> str:
        (one,) = locate(path, "left\n", [Finding(0, 4, "wrong-name", "", "b", 1.0)])
        (result,) = json.loads(as_sarif([one], "1", Coverage()))["runs"][0]["results"]
        return result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]

    assert uri(HOSTILE) == "a%1B%5B2J%0A%3A%3Aerror%20file%3Dx%3A%3Ab%FF%20%25.py"
    assert uri(Path("src/é.py")) == "src/%C3%A9.py" and uri(Path("/a b.py")) == "file:///a%20b.py"

"""Findings as text, JSON, SARIF and GitHub annotations."""

import json
from pathlib import Path

from infill.findings import Finding
from infill.lint.kinds import ALL_KINDS
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
    rows = json.loads(as_json(located()))
    assert rows[0] == {
        "path": "src/app.py",
        "range": {"start": {"line": 2, "column": 9}, "end": {"line": 2, "column": 10}},
        "code": "wrong-name",
        "message": "`a` looks like 100% the wrong name,\nno: `b`.",
        "replacement": "b",
        "score": 3.5,
    }
    assert json.loads(as_json([])) == []


def test_sarif_results_have_a_rule_and_a_fix() -> None:
    log = json.loads(as_sarif(located(), "1.2"))
    run = log["runs"][0]
    assert log["version"] == "2.1.0" and run["tool"]["driver"]["version"] == "1.2"
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    change = run["results"][1]["fixes"][0]["artifactChanges"][0]["replacements"][0]
    assert change["insertedContent"]["text"] == "2,\r\n  1"
    assert change["deletedRegion"] == {"startLine": 3, "startColumn": 7, "endLine": 4, "endColumn": 4}


def test_every_kind_is_a_rule_with_help() -> None:
    rules = {one["id"]: one for one in json.loads(as_sarif([], "1.2"))["runs"][0]["tool"]["driver"]["rules"]}
    assert set(rules) == set(ALL_KINDS)
    for code, rule in rules.items():
        assert rule["helpUri"].endswith(f"#{code}") and "```" in rule["help"]["markdown"]
        assert rule["defaultConfiguration"]["enabled"] is not code.startswith("style-")


def test_other_ranges_and_the_explanation_are_reported() -> None:
    (one,) = locate(Path("a.py"), TEXT, [Finding(0, 3, "style-naming", "So.", "x", 1.0, ((4, 5), (6, 7)), "As it is.")])
    assert [(more.line, more.column) for more in one.also] == [(1, 5), (1, 7)]
    (result,) = json.loads(as_sarif([one], "1.2"))["runs"][0]["results"]
    changes = result["fixes"][0]["artifactChanges"][0]["replacements"]
    assert [change["deletedRegion"]["startColumn"] for change in changes] == [1, 5, 7]
    assert result["message"]["text"] == "So. As it is." and result["properties"]["explanation"] == "As it is."
    assert as_text([one]).endswith("^^^\n    As it is.\n") and as_github([one]).endswith("::So. As it is.\n")
    (row,) = json.loads(as_json([one]))
    assert row["explanation"] == "As it is." and len(row["also"]) == 2


def test_annotations_are_escaped() -> None:
    lines = as_github(located()).split("\n")
    assert len(lines) == 3
    assert lines[0].startswith("::notice file=src/app.py,line=2,endLine=2,col=9,endColumn=10,title=gesso wrong-name::")
    assert lines[0].endswith("100%25 the wrong name,%0Ano: `b`.")

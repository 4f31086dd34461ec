"""bench.quality.run as a whole: holes, answers, files written, bad input, Ctrl-C."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bench.quality import baselines as quality_baselines
from bench.quality import run as quality
from bench.quality.baselines import Pipeline
from bench.quality.run import batches, main, weights_digests
from infill.complete.completion import Completer
from infill.model_store import POCKET_FOLDER
from infill.settings import Settings

ALL_BASELINES = [f"--baseline={name}" for name in ("copy", "causal", "true-length", "fixed-length")]
QUICK = ("--count=1", "--threads=1")


@pytest.fixture(autouse=True)
def two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quality of the answers does not matter here. Without the variable, --threads takes effect."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    load = quality.load_completer

    def load_with_two_steps(settings: Settings) -> Completer:
        completer = load(settings)
        completer.model = replace(completer.model, sampling=completer.model.sampling.with_steps(2))
        return completer

    monkeypatch.setattr(quality, "load_completer", load_with_two_steps)
    monkeypatch.setattr(quality_baselines, "CAUSAL_LIMIT", 8)


def run(*arguments: str) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_all_methods_answer_the_same_holes_and_everything_is_written(corpus: Path, tmp_path: Path) -> None:
    output, markdown, lines = tmp_path / "quality.json", tmp_path / "quality.md", tmp_path / "outcomes.jsonl"
    options = [f"--corpus={corpus}", "--kind=line", "--compare-neighbours", "--calibrate=0.5", "--texts"]
    files = [f"--output={output}", f"--markdown={markdown}", f"--outcomes={lines}"]
    code, shown, _ = run(*options, *QUICK, *ALL_BASELINES, *files)
    assert code == 0
    report, outcomes = json.loads(output.read_text()), read_lines(lines)
    conditions = report["conditions"]
    names = ["pipeline", "pipeline with neighbours", "canvas alone", "copy", "causal", "true length", "fixed length"]
    assert conditions["methods"] == names
    assert Counter(one["method"] for one in outcomes) == dict.fromkeys(names, 1)
    places = {(one["kind"], one["project"], one["path"], one["offset"], one["truth"]) for one in outcomes}
    assert len(places) == 1, "the same hole for every method"
    assert conditions["weights"] == weights_digests(POCKET_FOLDER) and not conditions["interrupted"]
    assert (conditions["seed"], conditions["threads"], conditions["languages"]) == (1, 1, ["python"])
    assert {(row["kind"], row["method"]) for row in report["table"]} > {("all", name) for name in names}
    assert report["calibration"]["method"] == "pipeline" and report["calibration"]["target_precision"] == 0.5
    assert report["length_gap"]["holes"] == 1
    for name in names:
        assert name in shown and f"| {name} |" in markdown.read_text()
    assert "| hole | method |" in markdown.read_text() and "0.5" in shown
    assert "outcomes" not in report and len(output.read_text()) < 10_000


def test_a_method_gets_only_the_kinds_it_can_fill(corpus: Path, tmp_path: Path) -> None:
    lines = tmp_path / "outcomes.jsonl"
    options = [f"--corpus={corpus}", "--kind=statement", "--baseline=fixed-length", "--no-copies", "--no-draft"]
    code, _, _ = run(*options, *QUICK, f"--outcomes={lines}")
    assert code == 0 and [one["method"] for one in read_lines(lines)] == ["canvas alone"]


def test_several_languages_and_no_texts(corpus: Path, tmp_path: Path) -> None:
    output, lines = tmp_path / "quality.json", tmp_path / "outcomes.jsonl"
    options = [f"--corpus={corpus}", "--language=python", "--language=javascript", "--kind=line", "--no-copies"]
    files = [f"--output={output}", f"--outcomes={lines}"]
    code, shown, _ = run(*options, *QUICK, "--no-draft", "--batch=1", *files)
    report = json.loads(output.read_text())
    assert code == 0 and "language" in shown and "one request at a time" in shown
    assert {row["language"] for row in report["table"]} == {"python", "javascript", "all"}
    assert report["conditions"]["methods"] == ["canvas alone"]
    assert not any("text" in one or "truth" in one for one in read_lines(lines))


def test_ctrl_c_keeps_the_finished_batches(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill, calls = Pipeline.fill, []

    def fill_once(self: Pipeline, questions: Any) -> Any:
        calls.append(len(questions))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fill(self, questions)

    monkeypatch.setattr(Pipeline, "fill", fill_once)
    output, lines = tmp_path / "quality.json", tmp_path / "outcomes.jsonl"
    options = (f"--corpus={corpus}", "--kind=line", "--count=4", "--batch=2", "--threads=1")
    code, shown, _ = run(*options, f"--output={output}", f"--outcomes={lines}")
    report = json.loads(output.read_text())
    assert code == 130 and report["conditions"]["interrupted"] and len(read_lines(lines)) == 2
    assert "What is written" in shown and calls == [2, 2]


def test_ctrl_c_before_the_first_batch(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Pipeline, questions: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "fill", stop)
    output = tmp_path / "quality.json"
    code, _, said = run(f"--corpus={corpus}", *QUICK, f"--output={output}")
    assert (code, said) == (130, "gesso: Stopped.") and not output.exists()


@pytest.mark.parametrize(
    "wrong, code, words",
    [
        (["--language=perl"], 2, "no language 'perl'; choose from python"),
        (["--kind=word"], 2, "no kind of hole 'word'; choose from token span"),
        (["--language=go"], 3, "no held-out files in go"),
        (["--model=./nowhere"], 3, "no model folder"),
        (["--output=/no/such/folder/a.json"], 3, "no folder /no/such/folder"),
        (["--outcomes=/no/such/folder/a.jsonl"], 3, "no folder /no/such/folder"),
        (["--language=javascript", "--kind=block", "--count=1"], 0, ""),
    ],
)
def test_bad_input_is_one_sentence(corpus: Path, wrong: list[str], code: int, words: str) -> None:
    got, _, said = run(f"--corpus={corpus}", "--threads=1", *wrong)
    assert got == code and words in said and said.count("gesso:") == (1 if code else 0)


def test_batches_take_turns() -> None:
    groups: list[Any] = [["a1", "a2", "a3"], ["b1"], []]
    assert list(batches(groups, 2)) == [["a1", "a2"], ["b1"], ["a3"]]


def test_weights_are_named_by_their_checksums(tmp_path: Path) -> None:
    assert weights_digests(tmp_path) == {}
    digests = weights_digests(POCKET_FOLDER)
    assert digests
    for name, digest in digests.items():
        assert hashlib.sha256((POCKET_FOLDER / name).read_bytes()).hexdigest() == digest

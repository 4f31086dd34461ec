"""Loss curves: reading logs, resumed runs, and the picture."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.errors import InputError
from train.curves import Run, draw, main, read_run, smoothed
from train.program import reports_errors


def record(step: int, phase: str = "causal", **more: Any) -> dict[str, Any]:
    return {"phase": phase, "step": step, "seconds": step, "tokens": 1000 * step, "rate": 1.0, "causal": 3.0} | more


def write(folder: Path, records: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    causal = [record(step, causal=9 - step / 20, **({"valid_causal": 5.0} if step == 60 else {}))
              for step in range(20, 120, 20)]  # fmt: skip
    holes = [record(step, "diffusion", hole=6 - step / 50, valid_hole=3.5) for step in range(120, 220, 20)]
    end = {"phase": "diffusion", "step": 205, "seconds": 205.0, "tokens": 205_000, "valid_causal": 3.1}
    return write(tmp_path / "first", [*causal, *holes, end])


def test_a_resumed_run_replaces_older_records(tmp_path: Path) -> None:
    steps = [20, 40, 60, 80, 60, 80, 100]
    path = write(tmp_path / "run", [record(step, causal=float(index)) for index, step in enumerate(steps)])
    tokens, values = read_run(path, "run").series("causal")
    assert tokens.tolist() == [20e3, 40e3, 60e3, 80e3, 100e3]
    assert values.tolist()[:2] == [0, 1] and values.tolist()[3:] == [5, 6]


def test_phases_have_no_gaps(run: Path) -> None:
    assert read_run(run, "run").phases() == [("causal", 0, 100e3), ("diffusion", 100e3, 205e3)]


def test_smoothing_keeps_lines_straight_and_removes_noise() -> None:
    line = np.linspace(5, 3, 200)
    assert smoothed(line, 4)[20:-20] == pytest.approx(line[20:-20]), "no lag"
    assert smoothed(np.full(3, 2.0), 10) == pytest.approx(2.0), "fewer values than the width"
    noisy = line + np.random.default_rng(0).normal(0, 0.5, 200)
    assert np.std(smoothed(noisy, 4) - line) < 0.3 * np.std(noisy - line)


def texts(picture: Path) -> list[str]:
    return [node.text or "" for node in ElementTree.parse(picture).iter() if node.tag.endswith("}text")]


def test_the_picture_names_phases_runs_and_axes(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = CliRunner().invoke(_app(), [str(run), "--out", str(tmp_path / "one.svg")])
    assert result.exit_code == 0, result.output
    shown = texts(tmp_path / "one.svg")
    assert {"causal phase", "diffusion phase", "held out", "million tokens"} <= set(shown)
    before = (tmp_path / "one.svg").read_bytes()
    draw([read_run(run, "first")], tmp_path / "one.svg")
    assert (tmp_path / "one.svg").read_bytes() == before, "the same log gives the same picture"
    other = write(tmp_path / "second", [record(20), record(40)])
    arguments = [str(run), str(other / "log.jsonl"), "--out", str(tmp_path / "both.svg")]
    assert CliRunner().invoke(_app(), arguments).exit_code == 0
    assert {"first", "second"} <= set(texts(tmp_path / "both.svg"))
    arguments += ["--label", "a", "--label", "b"]
    assert CliRunner().invoke(_app(), arguments).exit_code == 0
    assert {"a", "b"} <= set(texts(tmp_path / "both.svg"))
    assert CliRunner().invoke(_app(), arguments[:-2]).exit_code == 3


def _app() -> Any:
    import typer

    app = typer.Typer()
    app.command()(reports_errors(main))
    return app


def test_a_run_without_holes_has_no_plot_for_them(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw([Run("run", [record(20), record(40)])], tmp_path / "one.svg")
    assert not any("holes" in text for text in texts(tmp_path / "one.svg"))


def test_without_matplotlib_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        draw([Run("run", [record(20)])], tmp_path / "one.svg")


@pytest.mark.parametrize("content", ["no json\n", '{"step": 20}\n', "[1]\n", ""])
def test_an_invalid_log_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "log.jsonl").write_text(content)
    with pytest.raises(InputError):
        read_run(tmp_path, "run")


def test_a_missing_log_and_an_unknown_format_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no"):
        read_run(tmp_path / "none", "run")
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match="svg"):
        draw([read_run(run, "run")], tmp_path / "picture.bmp")

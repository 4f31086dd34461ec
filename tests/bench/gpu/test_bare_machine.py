"""The tests and measurements for a GPU run with the packages of a bare machine: see `tests.bare_machine`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[3]
PROGRAMS = sorted(
    file.stem for file in (ROOT / "bench" / "gpu").glob("*.py") if "typer.run(" in file.read_text(encoding="utf-8")
)
IN_PYTEST = ("pytest", "-p", "no:cacheprovider", "-rs")


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.bare_machine", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_other_packages_are_absent() -> None:
    for module in ("platformdirs", "tree_sitter", "hypothesis", "gguf"):
        refused = run(module)
        assert refused.returncode == 1 and f"No module named {module}" in refused.stderr, refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_starts(program: str) -> None:
    found = run(f"bench.gpu.{program}", "--help")
    assert found.returncode == 0 and "Usage" in found.stdout, found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("file", ["tests/kernels/test_on_gpu.py", "tests/engine/test_canvas.py"])
def test_the_tests_of_a_gpu_run(file: str) -> None:
    found = run(*IN_PYTEST, file)
    assert found.returncode == 0 and " error" not in found.stdout, found.stdout + found.stderr
    assert "passed" in found.stdout or "needs an NVIDIA GPU" in found.stdout


@pytest.mark.slow
def test_a_dry_run_writes_its_figures(tmp_path: Path) -> None:
    sizes = ("--steps", "1", "--warm-steps", "1", "--repeats", "2", "--warm-up", "1")
    found = run("bench.gpu.infill", "--tiny", "--format", "int4", *sizes, "--name", "dry", "--out", str(tmp_path))
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "dry.json").is_file()

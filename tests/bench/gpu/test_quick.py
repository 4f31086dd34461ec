"""`bench/gpu/quick`: order, records of failures, continuing, and a dry run with the packages of a bare machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.gpu.quick import ENTRIES, STATE, Entry, run_all
from tests.kernels.test_in_interpreter import why_not
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[3]


def write(name: str, text: str = "x") -> Entry:
    """Adds `text` to a file of that name."""

    def work(tiny: bool, out: Path) -> None:
        with (out / name).open("a") as file:
            file.write(text)

    return Entry(name, PATIENCE_S, work)


def fail(tiny: bool, out: Path) -> None:
    (out / "partial").write_text("half")
    raise ValueError("no such kernel")


def crash(tiny: bool, out: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(tiny: bool, out: Path) -> None:
    subprocess.run([sys.executable, "-c", f"import time; time.sleep(6); open({str(out / 'late')!r}, 'w')"])


def test_what_fails_is_recorded_and_the_rest_runs(tmp_path: Path) -> None:
    entries = [write("first"), Entry("wrong", PATIENCE_S, fail), Entry("crash", PATIENCE_S, crash), write("last")]
    record = run_all(entries, tmp_path, 10 * PATIENCE_S, tiny=True)
    assert record.failures["wrong"] == "ValueError: no such kernel" and "-9" in record.failures["crash"]
    assert [(tmp_path / name).read_text() for name in ("first", "partial", "last")] == ["x", "half", "x"]
    states = json.loads((tmp_path / STATE).read_text())
    assert [one["status"] for one in states.values()] == ["done", "failed", "failed", "done"]
    run_all(entries, tmp_path, 10 * PATIENCE_S, tiny=True)
    assert (tmp_path / "first").read_text() == "x", "nothing runs twice"


@pytest.mark.slow
def test_it_continues_where_the_time_was_over(tmp_path: Path) -> None:
    entries = [write("first"), Entry("slow", 60, hang), write("last")]
    run_all(entries[:1], tmp_path, PATIENCE_S, tiny=True)
    record = run_all(entries, tmp_path, 4.0, tiny=True)
    assert list(record.entries) == ["first"]
    time.sleep(4)
    assert not (tmp_path / "late").exists(), "what an entry has started ends with it"
    entries[1] = write("slow")
    assert list(run_all(entries, tmp_path, 10 * PATIENCE_S, tiny=True).entries) == ["first", "slow", "last"]


def test_an_entry_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    record = run_all([write("first"), Entry("slow", 0.5, hang), write("last")], tmp_path, 10 * PATIENCE_S, tiny=True)
    assert "more than 0 s" in record.failures["slow"] and record.entries["last"]["status"] == "done"


def test_without_the_first_entry_nothing_is_recorded(tmp_path: Path) -> None:
    record = run_all([Entry("versions", PATIENCE_S, fail), write("last")], tmp_path, 10 * PATIENCE_S, tiny=True)
    assert record.entries == {} and not (tmp_path / "last").exists()


def test_the_order_is_that_of_importance() -> None:
    names = [entry.name for entry in ENTRIES]
    assert len(set(names)) == len(names)
    first = ["versions", "kernels", "experts", "step int4", "step nvfp4", "step fp8", "step bf16", "requests int4"]
    assert names[:8] == first and names.index("requests bf16") < names.index("batch int4") < names.index("masked 7b")


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_dry_run_runs_everything_with_the_packages_of_a_bare_machine(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bare_machine", "bench.gpu.quick", "--dry-run", "--out", str(tmp_path)]
    run = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout + run.stderr
    states = json.loads((tmp_path / STATE).read_text())
    assert list(states) == [entry.name for entry in ENTRIES] and {s["status"] for s in states.values()} == {"done"}
    for name in (
        "versions",
        "self_check",
        "step_kernels_mixture",
        "step_int4",
        "completer_bf16",
        "batch_int4",
        "masked_7b",
    ):
        assert json.loads((tmp_path / f"{name}.json").read_text())["figures"] is not False

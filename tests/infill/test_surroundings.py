"""Commands end with the right code and one sentence in any surroundings: interrupts, closed streams, full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "gesso_launcher.py"
SWALLOWS = """
import sys, time
from infill.surroundings import interrupt_is_reported, prepared, was_interrupted
with prepared():
    {body}
    print("end")
"""
WAITS = """
    print("begun", flush=True)
    time.sleep(600)
"""
SWALLOWED_ONCE = """
    try:
        print("begun", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        pass
    assert was_interrupted()
    time.sleep(600)
"""
ENDS_AS_IF_NOTHING_HAPPENED = """
    try:
        print("begun", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        sys.exit(0)
"""
FAILS_AFTERWARDS = """
    try:
        print("begun", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        raise AttributeError("half imported")
"""
WITH_A_BUSY_THREAD = """
    import threading
    threading.Thread(target=time.sleep, args=(600,)).start()
    print("begun", flush=True)
    time.sleep(600)
"""
REPORTED = """
    import infill.surroundings
    infill.surroundings.AGAIN_S = 600
    try:
        print("begun", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("Stopped by itself.", file=sys.stderr)
        interrupt_is_reported()
        sys.exit(130)
"""
EXITS_IN_SILENCE = """
    try:
        print("begun", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        sys.exit(130)
"""
WAITS_FOR_A_THREAD = """
    import threading
    threading.Thread(target=time.sleep, args=(600,)).start()
    threading.Timer(0.5, print, ("begun",), {"flush": True}).start()
    sys.exit(0)
"""


def run(*arguments: str, shell: str, given: bytes = b"", **options: object) -> subprocess.CompletedProcess[bytes]:
    """Runs `gesso` by a line of bash in which "$@" is the command."""
    command = ["bash", "-c", shell, "-", sys.executable, "-P", str(LAUNCHER), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, input=given, capture_output=True, env=environment, timeout=PATIENCE_S, check=False, **options
    )  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    ("body", "is_said"),
    [
        (WAITS, True),
        (SWALLOWED_ONCE, True),
        (ENDS_AS_IF_NOTHING_HAPPENED, True),
        (FAILS_AFTERWARDS, True),
        (WITH_A_BUSY_THREAD, True),
        (REPORTED, False),
        (EXITS_IN_SILENCE, True),
        (WAITS_FOR_A_THREAD, True),
    ],
)
def test_an_interrupted_command_exits_with_130(body: str, is_said: bool) -> None:
    command = [sys.executable, "-c", SWALLOWS.format(body=body)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (130, b"")
    assert errors == (b"gesso: Stopped.\n" if is_said else b"Stopped by itself.\n")


ENDS = """
import os, signal, sys
from infill.surroundings import prepared

class Late:
    def __del__(self):
        os.kill(os.getpid(), 2)

with prepared():
    sys.late = Late()
    print("done")
    sys.exit(0)
"""


def test_a_command_that_has_done_its_work_is_not_interrupted() -> None:
    """While the interpreter ends, it has no handlers of its own."""
    done = subprocess.run([sys.executable, "-c", ENDS], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")


INTERRUPTED_EARLY = """
import os, sys
import gesso_launcher

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "infill.surroundings":
            os.kill(os.getpid(), 2)

sys.meta_path.insert(0, Finder())
sys.argv = ["gesso", "--version"]
gesso_launcher.gesso()
"""


def test_an_interrupt_before_anything_is_imported() -> None:
    command = [sys.executable, "-c", INTERRUPTED_EARLY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"gesso: Stopped.\n")


def test_an_ignored_interrupt_stays_ignored() -> None:
    done = run("config", "--json", shell='trap "" INT; "$@" & sleep 0.2; kill -INT $!; wait $!')
    assert done.returncode == 0 and done.stdout.startswith(b"{")


@pytest.mark.parametrize(
    ("arguments", "shell", "sentence"),
    [
        (["config"], '"$@" >/dev/full', b"Standard output cannot be written (No space left on device)"),
        (["config", "--json"], '"$@" >/dev/full', b"Standard output cannot be written (No space left on device)"),
        (["--help"], '"$@" >/dev/full', b"Standard output cannot be written (No space left on device)"),
        (["model", "path"], '"$@" >&-', b"Standard output is closed; redirect it"),
        (["config"], '"$@" >&-', b"Standard output is closed; redirect it"),
        (["--version"], '"$@" >&-', b"Standard output is closed; redirect it"),
        (["infill", "-", "--at", "1:1"], '"$@" <&-', b"Standard input cannot be read"),
        (["config", "--json"], 'ulimit -f 0; "$@" >config.json', b"Standard output cannot be written (File too large)"),
    ],
)
def test_output_and_input_that_cannot_be_used_are_one_sentence(
    tmp_path: Path, arguments: list[str], shell: str, sentence: bytes
) -> None:
    done = run(*arguments, shell=shell, cwd=tmp_path)
    assert done.returncode == 3 and sentence in done.stderr and done.stderr.count(b"\n") == 1


def test_a_full_disk_is_not_taken_for_standard_output(tmp_path: Path) -> None:
    shell = f'export HOME={tmp_path} BASH_VERSION=5; ulimit -f 0; "$@" | cat; exit ${{PIPESTATUS[0]}}'
    done = run("--install-completion", "bash", shell=shell)
    assert done.returncode == 3 and b"A file cannot be written (File too large); free disk space" in done.stderr
    assert b"Standard output" not in done.stderr and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("shell", ['"$@" 2>&-', '"$@" 2>/dev/full', '"$@" <&- 2>&-'])
def test_messages_that_nobody_can_read_are_dropped(tmp_path: Path, shell: str) -> None:
    done = run("model", "path", shell=shell)
    assert (done.returncode, done.stderr) == (0, b"") and done.stdout
    failed = run("infill", "absent.py", "--at", "1:1", shell=shell, cwd=tmp_path)
    assert (failed.returncode, failed.stdout, failed.stderr) == (3, b"", b"")


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    script = (
        "import os, infill.surroundings as s\nwith s.prepared():\n    print(os.open('f', os.O_CREAT | os.O_RDWR) > 2)"
    )
    command = ["bash", "-c", 'exec <&- 2>&-; exec "$@"', "-", sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"True\n"


@pytest.mark.parametrize(
    "arguments",
    [["lint"], ["trust"], ["lint", "a.py"], ["batch", "in.jsonl", "/tmp/out.jsonl"], ["infill", "a.py", "--at", "1:1"]],
)
def test_relative_paths_in_a_deleted_folder_are_not_looked_up_elsewhere(tmp_path: Path, arguments: list[str]) -> None:
    done = run(*arguments, shell='mkdir gone; cd gone; rmdir ../gone; exec "$@"', cwd=tmp_path)
    assert done.returncode == 3 and b"The working folder was deleted" in done.stderr
    assert done.stderr.count(b"\n") == 1 and done.stdout == b""

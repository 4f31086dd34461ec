"""Which files are ignored; git must agree. Hostile ignore files cost little time and memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from infill.git_config import GitUnreadable
from infill.git_patterns import Pattern
from infill.ignore_files import FILE_BYTES, ignored_by
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


@pytest.mark.parametrize("line", ["", "#a", "!", "/", "a\\", "*\\/", "a/b\\/", "[a", "[!", "[[:none:]]", "[a\\"])
def test_an_invalid_line_is_not_a_pattern(line: str) -> None:
    assert Pattern.parse(line) is None


def test_a_reversed_range_matches_nothing(repository: Path) -> None:
    put(repository, {".gitignore": "[b-a]\n[b-a]*.py\nc.py\n"})
    assert ignored_by(repository / "a.py") is None and ignored_by(repository / "c.py") == ".gitignore"


@pytest.mark.parametrize(
    ("pattern", "ignores"),
    [
        ("F.py", True),
        ("f.PY", True),
        ("\\F.py", False),
        ("\\f.py", True),
        ("[F].py", False),
        ("[f].py", True),
        ("[A-Z].py", True),
        ("[!A-Z].py", False),
        ("[!F].py", True),
        ("[[:upper:]].py", True),
        ("[\\F].py", False),
        ("*[P][y]", False),
        ("*.PY", True),
    ],
)
@pytest.mark.parametrize("name", ["F.py", "f.py"])
def test_without_case_escapes_and_classes_match_as_in_git(
    repository: Path, pattern: str, ignores: bool, name: str
) -> None:
    put(repository, {".git/HEAD": "ref: refs/heads/main\n", ".git/config": "[core]\nignoreCase = true\n"})
    put(repository, {".gitignore": f"{pattern}\n"})
    assert (ignored_by(repository / name) is not None) == ignores


@pytest.mark.parametrize(
    ("pattern", "ignored"),
    [
        ("a**/b.py", ["ab.py", "a/b.py", "ax/b.py", "a/c/b.py"]),
        ("/c/a***/b.py", ["c/ab.py", "c/a/d/b.py"]),
        ("?**/b.py", ["a/b.py", "ax/b.py"]),
        ("\\/ab.py", []),
        ("a[/]*.py", []),
    ],
)
def test_folders_in_the_middle_of_a_name_match_as_in_git(repository: Path, pattern: str, ignored: list[str]) -> None:
    names = ["ab.py", "a/b.py", "ax/b.py", "a/c/b.py", "c/ab.py", "c/a/d/b.py", "b.py", "x/ab.py"]
    put(repository, {".gitignore": f"{pattern}\n"})
    assert [name for name in names if ignored_by(repository / name)] == ignored


def is_unknown(file: Path) -> bool:
    """Whether nobody can say if the file is ignored."""
    try:
        ignored_by(file)
    except GitUnreadable:
        return True
    return False


@pytest.mark.parametrize("name", [".gitignore", ".git/info/exclude", ".git/config"])
def test_pipes_devices_and_huge_files_are_not_read(repository: Path, name: str) -> None:
    """A file that cannot be read may ignore anything."""
    source = repository / name
    os.mkfifo(source)
    assert is_unknown(repository / "a.py")
    source.unlink()
    source.symlink_to("/dev/zero")
    assert is_unknown(repository / "a.py") == (name != ".gitignore")  # git does not follow a link there
    source.unlink()
    with source.open("wb") as stream:
        stream.truncate(5 << 30)
    assert is_unknown(repository / "a.py")


@pytest.mark.parametrize("name", [".gitignore", ".git/info/exclude"])
def test_an_ignore_file_has_a_largest_size(repository: Path, name: str) -> None:
    with (repository / name).open("wb") as stream:
        stream.write(b"a.py\n" + b"#" * (FILE_BYTES - 5))
    assert ignored_by(repository / "a.py") is not None and ignored_by(repository / "b.py") is None
    with (repository / name).open("ab") as stream:
        stream.write(b"#")
    assert is_unknown(repository / "b.py")


def test_the_ignore_files_of_a_path_have_a_largest_size_together(repository: Path) -> None:
    files = {f"{folder}.gitignore": "#" * 100_000 for folder in ("", "a/", "a/b/")}
    put(repository, files)
    assert ignored_by(repository / "a" / "x.py") is None
    assert is_unknown(repository / "a" / "b" / "x.py")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_may_ignore_anything(repository: Path) -> None:
    put(repository, {".gitignore": ""})
    (repository / ".gitignore").chmod(0)
    assert is_unknown(repository / "a.py")


def test_a_path_with_too_many_folders_is_unknown(repository: Path) -> None:
    assert is_unknown(repository.joinpath(*"a" * 101))
    assert ignored_by(repository.joinpath(*"a" * 100)) is None


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


def test_an_unfinished_repository_inside_does_not_hide_the_one_around_it(repository: Path) -> None:
    put(repository, {".gitignore": "a.py\n", "sub/.git/info/exclude": "b.py\n"})
    assert ignored_by(repository / "sub" / "a.py") and ignored_by(repository / "sub" / "b.py")
    put(repository, {"sub/.git/HEAD": "ref: refs/heads/main\n"})
    assert ignored_by(repository / "sub" / "a.py") is None and ignored_by(repository / "sub" / "b.py")


def test_names_are_compared_byte_by_byte(repository: Path) -> None:
    (repository / ".gitignore").write_bytes(b"caf\xe9.py\n")
    assert ignored_by(repository / os.fsdecode(b"caf\xe9.py"))
    assert ignored_by(repository / os.fsdecode(b"caf\xe8.py")) is None

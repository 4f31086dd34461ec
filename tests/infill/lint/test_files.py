"""Files and lines to check."""

import os
import subprocess
from pathlib import Path

import pytest

from engine.errors import InputError, UsageError
from infill.lint.files import changed_lines, character_ranges, find_files, shared_names


def git(folder: Path, *arguments: str) -> None:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    (tmp_path / "pkg").mkdir()
    (tmp_path / ".gitignore").write_text("made.py\nbuild/\n")
    for name in ("a.py", "pkg/b.js", "pkg/é.py", "made.py", "notes.unknown"):
        (tmp_path / name).write_text("one\ntwo\nthree\n")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "c.py").write_text("x\n")
    git(tmp_path, "add", "a.py", "pkg")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def names(folder: Path, found: list[Path]) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in found]


def test_folders_list_files_in_known_languages_that_git_does_not_ignore(repository: Path) -> None:
    (repository / "new.py").write_text("x\n")
    assert names(repository, find_files([repository])) == ["a.py", "new.py", "pkg/b.js", "pkg/é.py"]
    assert names(repository, find_files([repository / "pkg"])) == ["pkg/b.js", "pkg/é.py"]


def test_a_named_file_is_listed_once_even_if_ignored(repository: Path) -> None:
    found = find_files([repository / "made.py", repository / "a.py", repository])
    assert names(repository, found)[:2] == ["made.py", "a.py"]
    assert len(found) == len(set(found))


def test_deleted_files_are_not_listed(repository: Path) -> None:
    (repository / "a.py").unlink()
    assert "a.py" not in names(repository, find_files([repository]))


def test_outside_a_repository_hidden_folders_are_skipped(tmp_path: Path) -> None:
    for name in ("a.py", ".venv/b.py", "sub/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n")
    assert names(tmp_path, find_files([tmp_path])) == ["a.py", "sub/c.py"]
    with pytest.raises(InputError, match="no file or folder"):
        find_files([tmp_path / "none"])


def test_changed_lines_of_a_revision(repository: Path) -> None:
    (repository / "a.py").write_text("one\nTWO\nthree\nfour\nfive\n")
    (repository / "pkg" / "é.py").write_text("two\nthree\n")
    (repository / "pkg" / "b.js").write_text("one\ntwo\nthree\n++ b/other.py\n")
    changed = changed_lines("HEAD", [repository])
    assert changed[(repository / "a.py").resolve()] == [range(2, 3), range(4, 6)]
    assert changed[(repository / "pkg" / "b.js").resolve()] == [range(4, 5)]
    assert (repository / "pkg" / "é.py").resolve() not in changed
    assert character_ranges("one\nTWO\nthree\nfour\nfive\n", [range(2, 3), range(4, 6)]) == ((4, 8), (14, 24))


def test_bad_revisions_are_reported(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UsageError, match="no revision 'nowhere'"):
        changed_lines("nowhere", [repository])
    with pytest.raises(UsageError, match="is not a revision"):
        changed_lines("--output=x", [repository])
    with pytest.raises(UsageError, match="not in a git repository"):
        changed_lines("HEAD", [tmp_path_factory.mktemp("plain")])


def test_names_shared_by_files(tmp_path: Path) -> None:
    for name, text in (("a.py", "once = once + both"), ("b.py", "both"), ("c.py", "")):
        (tmp_path / name).write_text(text)
    (tmp_path / "d.py").write_bytes(b"once \xff")
    assert shared_names([*tmp_path.iterdir(), tmp_path / "none.py"]) == {"both"}

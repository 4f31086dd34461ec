"""Files and lines to check."""

import hashlib
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from engine.errors import InputError, UsageError
from infill.git_patterns import MOST_LEVELS
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


def test_private_files_are_not_listed(repository: Path) -> None:
    for name in (".aws/x.py", "deep/.kube/y.py", "fine.py"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("x\n")
    assert names(repository, find_files([repository])) == ["a.py", "fine.py", "pkg/b.js", "pkg/é.py"]
    (repository / "pkg" / ".env").write_text("x\n")
    (repository / "named.py").symlink_to("pkg/.env")
    with pytest.raises(InputError, match="may hold secrets"):
        find_files([repository / "named.py"])
    with (repository / ".gitignore").open("wb") as stream:
        stream.truncate(1 << 20)
    with pytest.raises(InputError, match=r"\.gitignore cannot be read"):
        find_files([repository])


def test_what_cannot_be_read_is_named(repository: Path) -> None:
    (repository / "pkg" / ".gitignore").write_bytes(b"#" * (200 << 10))
    (repository / "pkg" / "deep").mkdir()
    (repository / "huge.py").write_bytes(b"\n" * (5 << 20))
    os.mkfifo(repository / "pipe.py")
    unreadable: dict[Path, str] = {}
    assert names(repository, find_files([repository], unreadable)) == ["a.py"]
    assert names(repository, sorted(unreadable)) == ["huge.py", "pipe.py", "pkg/b.js", "pkg/deep", "pkg/é.py"]
    assert "more than 4 MiB" in unreadable[repository / "huge.py"]
    assert "not a regular file" in unreadable[repository / "pipe.py"]
    assert {unreadable[repository / "pkg" / name] for name in ("b.js", "deep", "é.py")} == {
        f"{repository}/pkg/.gitignore cannot be read (it is larger than 131,072 bytes), so it is unknown what git "
        "ignores; correct that file."
    }


def test_folders_that_are_nested_without_end_are_named(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(MOST_LEVELS + 20):
        folder /= "a"
    folder.mkdir(parents=True)
    (tmp_path / "b.py").touch()
    unreadable: dict[Path, str] = {}
    assert find_files([tmp_path], unreadable) == [tmp_path / "b.py"]
    ((path, sentence),) = unreadable.items()
    assert len(path.relative_to(tmp_path).parts) == MOST_LEVELS and "nested" in sentence


def test_a_named_folder_that_is_ignored_is_named(repository: Path) -> None:
    unreadable: dict[Path, str] = {}
    assert find_files([repository / "build"], unreadable) == []
    assert "ignored by .gitignore" in unreadable[repository / "build"]


def test_folders_that_cannot_be_listed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if Path(folder).name == "pkg":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    unreadable: dict[Path, str] = {}
    assert names(repository, find_files([repository], unreadable)) == ["a.py"]
    assert "Permission denied" in unreadable[repository / "pkg"]
    with pytest.raises(InputError, match="Permission denied"):
        find_files([repository / "pkg"])


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
    changed = changed_lines("HEAD", find_files([repository]))
    assert changed[(repository / "a.py").resolve()] == [range(2, 3), range(4, 6)]
    assert changed[(repository / "pkg" / "b.js").resolve()] == [range(4, 5)]
    assert (repository / "pkg" / "é.py").resolve() not in changed
    assert character_ranges("one\nTWO\nthree\nfour\nfive\n", [range(2, 3), range(4, 6)]) == ((4, 8), (14, 24))


def test_all_lines_of_a_new_file_are_changed(repository: Path) -> None:
    (repository / "new.py").write_text("x\ny\n")
    assert changed_lines("HEAD", find_files([repository])) == {(repository / "new.py").resolve(): [range(1, 3)]}


def test_line_ends_of_a_checkout_are_not_changes(repository: Path) -> None:
    (repository / "a.py").write_bytes(b"one\r\nTWO\r\nthree\r\n")
    assert changed_lines("HEAD", [repository / "a.py"]) == {(repository / "a.py").resolve(): [range(2, 3)]}


def test_bad_revisions_are_reported(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UsageError, match="no revision 'nowhere'"):
        changed_lines("nowhere", [repository / "a.py"])
    with pytest.raises(UsageError, match="is not a revision"):
        changed_lines("--output=x", [repository / "a.py"])
    with pytest.raises(UsageError, match="not in a git repository"):
        changed_lines("HEAD", [tmp_path_factory.mktemp("plain") / "a.py"])


def test_names_shared_by_files(tmp_path: Path) -> None:
    for name, text in (("a.py", "once = once + both"), ("b.py", "both"), ("c.py", "")):
        (tmp_path / name).write_text(text)
    (tmp_path / "d.py").write_bytes(b"once \xff")
    assert shared_names([*tmp_path.iterdir(), tmp_path / "none.py"]) == {"both"}


@pytest.fixture
def hostile_repository(repository: Path) -> Path:
    """A repository that names a program, which makes the file `ran` beside it, wherever git would run one."""
    program = repository.parent / "program"
    program.write_text(f"#!/bin/sh\ntouch {repository.parent}/ran\n")
    program.chmod(0o755)
    (repository / ".gitattributes").write_text("*.py filter=x diff=x\n")
    hook = repository / ".git" / "hooks" / "post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.symlink_to(program)
    with (repository / ".git" / "config").open("a") as config:
        config.write(
            f"""
[core]
    repositoryFormatVersion = 1
    fsmonitor = {program}
    pager = {program}
    sshCommand = {program}
    gitProxy = {program}
[alias]
    cat-file = !{program}
[filter "x"]
    clean = {program}
    process = {program}
[diff]
    external = {program}
[diff "x"]
    textconv = {program}
    command = {program}
[protocol "ext"]
    allow = always
[extensions]
    partialClone = origin
[remote "origin"]
    url = ext::{program}
    promisor = true
"""
        )
    return repository


def ran(repository: Path) -> bool:
    """Whether the program has run since the last call."""
    mark = repository.parent / "ran"
    existed = mark.exists()
    mark.unlink(missing_ok=True)
    return existed


def test_a_repository_runs_no_program(hostile_repository: Path) -> None:
    (hostile_repository / "a.py").write_text("one\nTWO\nthree\n")
    subprocess.run(["git", "diff"], cwd=hostile_repository, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert ran(hostile_repository)
    files = find_files([hostile_repository])
    assert changed_lines("HEAD", files) == {(hostile_repository / "a.py").resolve(): [range(2, 3)]}
    assert not ran(hostile_repository)


def test_a_pipe_in_the_configuration_is_an_error_before_git_runs(
    hostile_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(hostile_repository / ".git" / "pipe")
    with (hostile_repository / ".git" / "config").open("a") as config:
        config.write("[include]\n    path = pipe\n")
    monkeypatch.setattr("infill.git.subprocess.run", lambda *_, **__: pytest.fail("git would wait at the pipe"))
    with pytest.raises(InputError, match="not a regular file"):
        changed_lines("HEAD", [hostile_repository / "a.py"])


def test_old_contents_are_bounded_in_all(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "b.py").write_text("one\ntwo\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "b")
    files = [repository / "a.py", repository / "b.py"]
    for file in files:
        file.write_text("one\nTWO\n")
    monkeypatch.setattr("infill.git.MOST_BYTES", len("one\ntwo\nthree\n"))
    assert changed_lines("HEAD", files) == {files[0].resolve(): [range(2, 3)], files[1].resolve(): [range(1, 3)]}


def test_a_missing_object_is_not_fetched(hostile_repository: Path) -> None:
    file = hostile_repository / "a.py"
    blob = hashlib.sha1(b"blob 14\0one\ntwo\nthree\n").hexdigest()
    (hostile_repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    subprocess.run(
        ["git", "cat-file", "-p", blob],
        cwd=hostile_repository,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert ran(hostile_repository)
    file.write_text("other\n")
    with suppress(InputError):  # git before 2.45 tries to fetch it, which is refused
        assert changed_lines("HEAD", [file]) == {file.resolve(): [range(1, 2)]}
    assert not ran(hostile_repository)


def test_an_embedded_bare_repository_is_not_used(repository: Path) -> None:
    bare = repository / "inner"
    git(repository, "init", "--bare", str(bare))
    with (bare / "config").open("a") as config:
        config.write(f"[core]\n    bare = false\n    worktree = ..\n    fsmonitor = touch {repository.parent}/ran\n")
    (bare / "e.py").write_text("x\n")
    subprocess.run(["git", "status"], cwd=bare, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert ran(repository)
    files = find_files([bare])
    assert names(repository, files) == ["inner/e.py"]
    assert [*changed_lines("HEAD", files).values()] == [[range(1, 2)]]
    assert not ran(repository)

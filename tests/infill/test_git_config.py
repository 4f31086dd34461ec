"""The user's ignore file and the case of names, as git's configuration sets them; git must agree."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from infill.git_config import GitUnreadable
from infill.ignore_files import ignored_by
from tests.folders import put

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def home(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; git reads no configuration outside it."""
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return empty_home


@pytest.fixture
def work(home: Path) -> Path:
    """A repository in the user's home."""
    folder = home / "work" / "project"
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


def git_ignores(file: Path) -> bool:
    done = subprocess.run(["git", "check-ignore", "-q", "--no-index", str(file)], cwd=file.parent, check=False)
    assert done.returncode in (0, 1)
    return done.returncode == 0


@pytest.mark.parametrize(
    "config",
    [
        "[core]\n\texcludesFile = ~/.mine\n",
        "[core] excludesfile = ~/.mine",
        '[CORE]\nExcludesFile="~/.mine" ; a comment\n',
        "[core]\n\texcludesFile = ~/.mi\\\nne\n",
        "[core]\nexcludesFile = ~/.other\nexcludesFile = ~/.mine # the last one\n",
        "[core]\nexcludesFile = ~/other\n[include]\npath = inc\n",
        "[include]\npath = ~/inc\n",
        '[includeIf "gitdir:~/work/"]\npath = inc\n',
        '[includeIf "gitdir:work/"]\npath = inc\n',
        '[includeIf "gitdir:./work/*/.git"]\npath = inc\n',
        '[includeIf "gitdir/i:~/WORK/"]\npath = inc\n',
        "[core]\nexcludesFile = inner-list\n",
        "\ufeff[core]\r\nexcludesFile = ~/.mine\r\n",
        '[alias "a\\"b"]\nx = "a\\\\\\"; #" ; \n[core]\nexcludesFile = ~/.mine',
    ],
)
def test_the_users_configuration_names_an_ignore_file(home: Path, work: Path, config: str) -> None:
    put(home, {".gitconfig": config, ".mine": "mine.py\n", "inc": "[core]\nexcludesFile = ~/.mine\n"})
    put(work, {"inner-list": "mine.py\n"})
    assert git_ignores(work / "mine.py") and ignored_by(work / "mine.py")
    assert not git_ignores(work / "a.py") and not ignored_by(work / "a.py")


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[core]\nexcludesFile =\n",
        "[core]\nexcludesFile = /dev/null\n",
        "[core]\nexcludesFile = ~/.mine\nexcludesFile = ~/none\n",
        '[core "x"]\nexcludesFile = ~/.mine\n',
        "[core]\n# excludesFile = ~/.mine\n",
        '[includeIf "gitdir:~/play/"]\npath = inc\n',
        '[includeIf "gitdir:ork/"]\npath = inc\n',
        "[include]\npath = missing\n",
    ],
)
def test_other_configurations_do_not(home: Path, work: Path, config: str) -> None:
    put(home, {".gitconfig": config, ".mine": "mine.py\n", "inc": "[core]\nexcludesFile = ~/.mine\n"})
    assert not git_ignores(work / "mine.py") and ignored_by(work / "mine.py") is None


def test_later_files_of_the_configuration_come_first(home: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, {name: f"{name}.py\n" for name in ("first", "second", "third", "fourth")})
    put(home, {".config/git/config": "[core]\nexcludesFile = ~/first\n"})

    def the_only_one(name: str) -> bool:
        files = [work / f"{one}.py" for one in ("first", "second", "third", "fourth")]
        assert [git_ignores(file) for file in files] == [ignored_by(file) is not None for file in files]
        return ignored_by(work / f"{name}.py") == name

    assert the_only_one("first")
    put(home, {".gitconfig": "[core]\nexcludesFile = ~/second\n"})
    assert the_only_one("second")
    with (work / ".git" / "config").open("a") as stream:
        stream.write("[core]\nexcludesFile = ~/third\n")
    assert the_only_one("third")
    for name, value in (("COUNT", "1"), ("KEY_0", "core.excludesFile"), ("VALUE_0", "~/fourth")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert the_only_one("fourth")


def test_the_global_file_of_the_environment(home: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, {".gitconfig": "[core]\nexcludesFile = ~/list\n", "list": "a.py\n"})
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    assert not git_ignores(work / "a.py") and ignored_by(work / "a.py") is None
    put(home, {"other": "[core]\nexcludesFile = ~/list\n"})
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / "other"))
    assert git_ignores(work / "a.py") and ignored_by(work / "a.py")


def test_a_condition_that_is_not_evaluated_may_hold(home: Path, work: Path) -> None:
    put(home, {".gitconfig": '[includeIf "onbranch:x"]\npath = inc\n', "inc": "[core]\nexcludesFile = ~/list\n"})
    put(home, {"list": "a.py\n", ".config/git/ignore": "b.py\n"})
    assert ignored_by(work / "a.py") and ignored_by(work / "b.py")


def test_the_case_of_names(home: Path, work: Path) -> None:
    put(work, {".gitignore": "/Build/\n*.LOG\n[A-C].py\nÄ.py\n"})
    subprocess.run(["git", "config", "core.ignoreCase", "true"], cwd=work, check=True)
    for name in ("build/x.py", "a.log", "b.py", "ä.py", "Ä.PY", "d.py", "BUILD/y"):
        put(work, {name: ""})
        assert git_ignores(work / name) == (ignored_by(work / name) is not None), name


@pytest.mark.parametrize(
    "config",
    ["[core\n", "[core]\nexcludesFile\n", "[core]\nexcludesFile = a\\x\n", 'x = "', "[include]\npath = .gitconfig\n"],
)
def test_a_configuration_that_git_refuses_is_unknown(home: Path, work: Path, config: str) -> None:
    put(home, {".gitconfig": config})
    with pytest.raises(GitUnreadable, match="gitconfig cannot be read"):
        ignored_by(work / "a.py")


@pytest.mark.parametrize("pattern", ["*a" * 20 + "b/", "**/" * 50 + "b/"])
def test_no_condition_takes_long(home: Path, work: Path, pattern: str) -> None:
    with (work / ".git" / "config").open("a") as stream:
        stream.write(f'[includeIf "gitdir:{pattern}"]\npath = x\n')
    deep = work.joinpath(*("a" * 60,) * 20)
    assert ignored_by(deep / "a.py") is None


def test_worktrees_and_submodules(home: Path, work: Path) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    run = ["git", *who, "-C", str(work)]
    subprocess.run([*run, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    subprocess.run([*run, "worktree", "add", "-q", str(home / "tree")], check=True, capture_output=True)
    subprocess.run([*run, "submodule", "--quiet", "add", str(work), "sub"], check=True, capture_output=True)
    put(work, {".git/info/exclude": "mine.py\n", ".git/modules/sub/info/exclude": "inner.py\n"})
    for file in (home / "tree" / "mine.py", work / "mine.py", work / "sub" / "inner.py", work / "sub" / "mine.py"):
        assert git_ignores(file) == (ignored_by(file) is not None), file
    subprocess.run([*run, "config", "extensions.worktreeConfig", "true"], check=True)
    put(home, {"list": "own.py\n"})
    tree = ["git", "-C", str(home / "tree")]
    subprocess.run([*tree, "config", "--worktree", "core.excludesFile", str(home / "list")], check=True)
    assert git_ignores(home / "tree" / "own.py") and ignored_by(home / "tree" / "own.py")
    assert not git_ignores(work / "own.py") and ignored_by(work / "own.py") is None


def test_files_that_include_each_other_without_end_are_refused(work: Path) -> None:
    names = [f"c{number}" for number in range(9)]
    for name, following in zip(["config", *names], [*names, "none"], strict=True):
        (work / ".git" / name).write_text("[include]\n" + f"path = {following}\n" * 100)
    with pytest.raises(GitUnreadable, match="includes more than"):
        ignored_by(work / "a.py")


def test_many_large_files_are_refused(work: Path) -> None:
    (work / ".git" / "large").write_text("# \n" * 200_000)
    (work / ".git" / "config").write_text("[include]\n" + "path = large\n" * 20)
    with pytest.raises(GitUnreadable, match="more than 4,194,304 bytes"):
        ignored_by(work / "a.py")


def test_a_condition_longer_than_any_path_does_not_hold(work: Path) -> None:
    (work / ".git" / "config").write_text(f'[includeIf "gitdir:/{"a/" * 400_000}"]\npath = none\n')
    assert ignored_by(work / "a.py") is None


def test_many_possible_ignore_files_are_refused(work: Path) -> None:
    (work / ".git" / "inc").write_text("[core]\n" + "excludesFile = none\n" * 1000)
    (work / ".git" / "config").write_text('[includeIf "onbranch:x"]\npath = inc\n')
    with pytest.raises(GitUnreadable, match="may name more than"):
        ignored_by(work / "a.py")

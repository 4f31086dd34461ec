"""The one decision about private files: held to git over random trees, links and patterns."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from infill.privacy import MOST_LINKS, check_named, is_pattern, named_like_a_secret, private_reason
from tests.folders import put

pytestmark = pytest.mark.usefixtures("empty_home")

NAMES = st.sampled_from(
    ["a", "b", "ab", "a.py", "b.txt", "src", "é.py", "A.py", "B", "x y.py", "[b]", "#c", "!d", "*", "É"]
)
GLOBS = st.sampled_from(
    "* ** *.py ? [ab] a* *a*b* [!b]* [^a-b]? [[:alpha:]]b [b-a] a**b \\a *.* ??.py [é].py x\\ y.py \\#c \\!d \\* "
    "\\A.py \\B [A].py [A-Z] [!A-Z]* [!A]* [[:upper:]]* [[:lower:]] [^[:upper:]]* [\\A-B] [Z-a] É \\É".split(" ")
)
PIECES = st.one_of(NAMES, GLOBS)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PATTERNS = st.builds(
    lambda negated, anchored, pieces, end: negated + anchored + "/".join(pieces) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/", "**/"]),
    st.lists(PIECES, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/**", " ", "\r"]),
)
LISTS = st.lists(PATTERNS, max_size=5).map("\n".join)
TREES = st.builds(
    dict,
    files=st.lists(PATHS, min_size=1, max_size=10),
    links=st.lists(st.tuples(PATHS, PATHS, st.booleans()), max_size=5),
    ignore_files=st.dictionaries(st.one_of(st.just(""), PATHS), LISTS, max_size=4),
    exclude=LISTS,
    users=LISTS,
    ignore_case=st.sampled_from(["", "true", "false"]),
)


def make(root: Path, files: Iterable[str], links: Iterable[tuple[str, str, bool]]) -> list[Path]:
    """Files and links, as far as their names are free. A link is (where, target, absolute)."""
    made = []
    for name in files:
        file = root / name
        if not any(one.is_symlink() or one.is_file() for one in (file, *file.parents)) and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
            made.append(file)
    for name, target, absolute in links:
        link = root / name
        if not any(one.is_symlink() or one.is_file() for one in (link, *link.parents)) and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(root / target if absolute else os.path.relpath(root / target, link.parent))
            made.append(link)
    return made


def ignored(root: Path, paths: Iterable[Path]) -> set[Path]:
    """What git ignores of these; no path may lead through a link."""
    names = b"\0".join(os.fsencode(path.relative_to(root)) for path in paths)
    command = ["git", "-C", str(root), "check-ignore", "--no-index", "-z", "--stdin"]
    done = subprocess.run(command, input=names, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return {root / os.fsdecode(name) for name in done.stdout.split(b"\0") if name}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@given(TREES)
@settings(max_examples=60)
def test_git_agrees(tree: dict) -> None:
    with tempfile.TemporaryDirectory(prefix="gesso-test-") as name, pytest.MonkeyPatch.context() as patch:
        home = Path(name).resolve()
        patch.setenv("HOME", str(home))
        patch.delenv("XDG_CONFIG_HOME", raising=False)
        root = home / "root"
        subprocess.run(["git", "init", "-q", str(root)], check=True)
        put(home, {".gitconfig": "[core]\nexcludesFile = ~/mine\n", "mine": tree["users"]})
        if tree["ignore_case"]:
            subprocess.run(["git", "-C", str(root), "config", "core.ignoreCase", tree["ignore_case"]], check=True)
        put(root, {".git/info/exclude": tree["exclude"]})
        made = make(root, tree["files"], tree["links"])
        for folder, text in tree["ignore_files"].items():
            if (root / folder).is_dir() and (root / folder).resolve() == root / folder:
                put(root / folder, {".gitignore": text})
        plain = [path for path in made if not path.is_symlink()]
        links = [path for path in made if path.is_symlink()]
        targets = {link: Path(os.path.realpath(link)) for link in links}
        inside = {
            path
            for path in targets.values()
            if path.is_relative_to(root) and path != root and not any(one.is_symlink() for one in (path, *path.parents))
        }
        git = ignored(root, {*made, *inside})
        for path in plain:
            assert (private_reason(path) is not None) == (path in git), path
        for link, target in targets.items():
            if target.is_file():
                judged = {link, *(one for one in steps(link))}
                assert (private_reason(link) is not None) == bool(judged & ignored(root, judged)), link
            elif {link, target} & git:
                assert private_reason(link) is not None, link
        for folder, target in targets.items():
            for path in plain:
                if path.is_relative_to(target) and {folder, path} & git:
                    assert private_reason(folder / path.relative_to(target)) is not None, (folder, path)


def steps(link: Path) -> Iterable[Path]:
    """The links and the file that a link leads to, none of which lies behind another link."""
    path = link
    while path.is_symlink():
        path = Path(os.path.realpath(path.parent)) / os.readlink(path)
        path = Path(os.path.realpath(path.parent)) / path.name
        yield path


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".env.local",
        "prod.env",
        ".ENV",
        "server.pem",
        "Server.KEY",
        "id_rsa",
        "id_ed25519.pub",
        ".netrc",
        ".npmrc",
        "store.kdbx",
        "terraform.tfstate.backup",
        "credentials",
        "credentials.json",
        "client_secret_123.json",
        "app-secrets.yaml",
        "passwords.csv",
        "service-account-prod.json",
        ".ssh/config",
        ".SSH/config",
        ".aws/credentials",
        ".docker/config.json",
        ".config/gcloud/properties",
        ".password-store/bank.txt",
        ".envs/.local/.django",
    ],
)
def test_secrets_are_recognized_by_name(name: str) -> None:
    sentence = private_reason(Path("/home/ada/work", name))
    assert sentence is not None and "secrets" in sentence


@pytest.mark.parametrize(
    "name",
    [
        ".env.example",
        ".env.template",
        "environment.py",
        "env.py",
        "keys.py",
        "secrets.py",
        "secrets/manager.py",
        "credentials/store.go",
        "password_form.tsx",
        "secretary.json",
        ".docker/php/run.sh",
        "gcloud/client.py",
        ".github/workflows/test.yml",
        "monkey.py",
    ],
)
def test_code_about_secrets_is_not_a_secret(name: str) -> None:
    assert not named_like_a_secret(Path("/home/ada/work", name))
    assert private_reason(Path("/home/ada/work", name)) is None


def test_no_file_is_opened_if_the_name_decides(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(repository, {".env": "TOKEN=1", ".gitignore": "*.log"})

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    assert private_reason(repository / ".env", ("*.txt",), (repository,)) is not None


def test_ignored_files_are_refused(repository: Path) -> None:
    put(repository, {".gitignore": "*.log\n"})
    sentence = private_reason(repository / "a.log")
    assert sentence == "This file is ignored by .gitignore."
    assert private_reason(repository / "a.py") is None


def test_the_users_patterns(tmp_path: Path, empty_home: Path) -> None:
    work = tmp_path / "work"
    outer = tmp_path

    def refused(file: Path, *patterns: str) -> bool:
        return private_reason(file, patterns, (outer, work)) is not None

    assert refused(work / "legal" / "a.py", "legal/")
    assert refused(work / "legal" / "a.py", "/legal/**")
    assert not refused(work / "src" / "legal" / "a.py", "/legal/**")
    assert not refused(work / "legal" / "a.py", "*.js")
    assert refused(work / "a.py", "/*", "!/src/") and not refused(work / "src" / "a.py", "/*", "!/src/")
    assert refused(empty_home / "diary" / "a.py", "~/diary/")
    assert refused(work / "a.py", str(work / "a.py"))
    assert refused(work / "a.py", "!", "*.py")
    assert not is_pattern("!") and not is_pattern("") and is_pattern("*.py")


def test_a_link_to_a_secret_or_ignored_file_is_private(repository: Path, tmp_path: Path) -> None:
    put(repository, {".gitignore": "local/\n*.tmp\n", "local/a.py": "", ".env": "", "x.py": "", "x.tmp": ""})
    for name, target in (
        ("one.py", ".env"),
        ("two.py", "one.py"),
        ("three.py", "local/a.py"),
        ("four.py", str(repository / "local" / "a.py")),
        ("five.py", "../repository/local/a.py"),
        ("six.tmp", "x.py"),
        ("seven.py", "missing/.env"),
        ("folder", "local"),
    ):
        (repository / name).symlink_to(target)
    (tmp_path / "outside").symlink_to(repository)
    for name in ("one.py", "two.py", "three.py", "four.py", "five.py", "six.tmp", "seven.py", "folder/a.py"):
        assert private_reason(repository / name), name
        assert private_reason(tmp_path / "outside" / name), name
    (repository / "fine.py").symlink_to("x.py")
    assert private_reason(repository / "fine.py") is None
    assert private_reason(tmp_path / "outside" / "x.py") is None


def test_a_link_through_an_ignored_or_secret_link_is_private(repository: Path) -> None:
    put(repository, {".gitignore": "middle.py\n", "end.py": ""})
    (repository / "middle.py").symlink_to("end.py")
    (repository / "start.py").symlink_to("middle.py")
    (repository / ".netrc").symlink_to("end.py")
    (repository / "other.py").symlink_to(".netrc")
    assert private_reason(repository / "end.py") is None
    assert private_reason(repository / "start.py") and private_reason(repository / "other.py")


def test_an_ignored_link_to_another_repository_is_private(repository: Path, tmp_path: Path) -> None:
    put(tmp_path / "lib", {".git/HEAD": "", "a.py": ""})
    put(repository, {".gitignore": "vendor\n"})
    (repository / "vendor").symlink_to(tmp_path / "lib")
    assert private_reason(repository / "vendor" / "a.py")
    assert private_reason(tmp_path / "lib" / "a.py") is None


def test_links_in_a_circle_are_private(repository: Path) -> None:
    (repository / "a.py").symlink_to("b.py")
    (repository / "b.py").symlink_to("a.py")
    assert private_reason(repository / "a.py")
    (repository / "c0").symlink_to("x")
    for number in range(MOST_LINKS):
        (repository / f"c{number + 1}").symlink_to(f"c{number}")
    assert private_reason(repository / f"c{MOST_LINKS - 1}") is None and private_reason(repository / f"c{MOST_LINKS}")


def test_an_unreadable_ignore_file_makes_private_and_is_named(repository: Path) -> None:
    (repository / ".gitignore").write_bytes(b"#" * (1 << 20))
    sentence = private_reason(repository / "a.py")
    assert sentence is not None and f"{repository}/.gitignore cannot be read" in sentence


@pytest.mark.parametrize("name", ["a\0b.py", "x" * 5000, "/".join("y" * 2000)])
def test_a_path_that_cannot_exist_is_decided_too(repository: Path, name: str) -> None:
    private_reason(repository / name)


def test_the_users_patterns_outside_the_workspace_are_relative_to_the_repository(repository: Path) -> None:
    file = repository / "private" / "a.py"
    assert private_reason(file, ["/private/"]) and private_reason(file, ["/private/"], [Path("/elsewhere")])
    assert private_reason(repository / "lib" / "private" / "a.py", ["/private/"]) is None


def test_the_users_patterns_hold_behind_links(tmp_path: Path) -> None:
    put(tmp_path, {"real/private/a.py": ""})
    (tmp_path / "folder").symlink_to("real")
    for folder in ("real", "folder"):
        for path in ("real", "folder"):
            assert private_reason(tmp_path / path / "private" / "a.py", ["/private/"], [tmp_path / folder])


def test_a_document_without_a_file_is_decided_by_its_name(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(repository, {".gitignore": "*\n"})
    monkeypatch.chdir(repository)
    assert private_reason(Path("Untitled-1")) is None
    assert private_reason(Path(".env")) and private_reason(Path("Untitled-1"), ["Unt*"])


def test_a_named_file_may_be_ignored_but_not_secret(repository: Path) -> None:
    put(repository, {".gitignore": "made.py\n", "made.py": "", ".env": "", "a.py": ""})
    check_named(repository / "made.py")
    check_named(repository / "missing.py")
    for name, target in (("link.py", ".env"), ("other.py", "made.py"), ("made2.py", "a.py")):
        (repository / name).symlink_to(target)
    check_named(repository / "made2.py")
    for name in (".env", "link.py", "other.py"):
        with pytest.raises(InputError, match="was not read"):
            check_named(repository / name)

"""Which files are refused; git must agree on which are ignored."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from infill.ignore_files import ignored_by
from lsp.privacy import is_pattern, named_like_a_secret, private_reason

CODE = "def area(width, height):\n    return width * height\n"


@pytest.fixture(autouse=True)
def empty_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, without the ignore file of the user who runs the tests."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / ".git" / "info").mkdir(parents=True)
    return folder


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


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
    sentence = private_reason(f"/home/ada/work/{name}", (), (), CODE)
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
    assert private_reason(f"/home/ada/work/{name}", (), (), CODE) is None


def test_no_file_is_opened_if_the_name_decides(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(repository, {".env": "TOKEN=1", ".gitignore": "*.log"})

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    assert private_reason(str(repository / ".env"), ("*.txt",), (repository,), "TOKEN=1") is not None


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
    sentence = private_reason(str(repository / "a.log"), (), (), CODE)
    assert sentence == "This file is ignored by .gitignore."


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
    assert not is_pattern("!") and not is_pattern("") and is_pattern("*.py")


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

    def pattern() -> str:
        pieces = [chance.choice([*names, "*", "**", "*.py", "?", "[ab]", "a*"]) for _ in range(chance.randint(1, 3))]
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


def test_the_users_patterns(tmp_path: Path, empty_home: Path) -> None:
    work = tmp_path / "work"
    outer = tmp_path

    def refused(file: Path, *patterns: str) -> bool:
        return private_reason(str(file), patterns, (outer, work), CODE) is not None

    assert refused(work / "legal" / "a.py", "legal/")
    assert refused(work / "legal" / "a.py", "/legal/**")
    assert not refused(work / "src" / "legal" / "a.py", "/legal/**")
    assert not refused(work / "legal" / "a.py", "*.js")
    assert refused(work / "a.py", "/*", "!/src/") and not refused(work / "src" / "a.py", "/*", "!/src/")
    assert refused(empty_home / "diary" / "a.py", "~/diary/")
    assert refused(work / "a.py", str(work / "a.py"))
    assert refused(work / "a.py", "!", "*.py")


@pytest.mark.parametrize("name", ["app.min.js", "package-lock.json", "Cargo.lock", "user_pb2.py", "api.pb.go"])
def test_generated_files_are_recognized_by_name(name: str) -> None:
    assert private_reason(f"/home/ada/{name}", (), (), CODE) == "The name of this file says that it is generated."


def test_generated_files_are_recognized_by_text() -> None:
    assert private_reason(None, (), (), "// Code generated by protoc-gen-go. DO NOT EDIT.\npackage a\n")
    assert private_reason(None, (), (), "/**\n * @generated by relay\n */\n")
    assert private_reason(None, (), (), 'GENERATED = re.compile(r"@generated\\b|DO NOT EDIT")\n') is None
    assert private_reason(None, (), (), "x" * 200 + "\n" + "# DO NOT EDIT below\n") is not None
    assert private_reason(None, (), (), CODE * 60 + "# DO NOT EDIT below\n") is None
    assert private_reason(None, (), (), "var a=1;" * 1000) is not None
    assert private_reason(None, (), (), "var a=1;\r" * 1000) is None
    assert private_reason(None, (), (), "short = 1\n" * 200_001) == "This file is longer than 2,000,000 characters."
    assert private_reason(None, (), (), CODE) is None

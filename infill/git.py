"""Reads the objects of git repositories whose configuration is not trusted.

git can run programs that a repository's configuration names: hooks, filters, a file system monitor, a pager, external
diffs, and transports that fetch missing objects. Only commands that read objects run here, with all of these switched
off; the index and the working tree are never read by git. Must not know why somebody asks.
"""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from engine.errors import InputError, UsageError
from infill.git_config import GitFolder, read_ignore_config

QUICK_S, TIMEOUT_S = 5.0, 20.0  # to find a commit, and to read objects; git waits at a pipe in its folder
MOST_MEMORY = 2 << 30  # bytes; git reads a device in its folder without end
MOST_BYTES = 256 << 20  # of all contents at a revision
SAFE = (
    "git",
    "--no-pager",
    "--no-optional-locks",
    "--no-replace-objects",
    "--literal-pathspecs",
    *("-c", "core.fsmonitor=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "core.pager=cat"),
    *("-c", "safe.bareRepository=explicit"),
)
ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "none",  # overrides every `protocol.*.allow`
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
REPOSITORY_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_CEILING_DIRECTORIES")


class Revision:
    """A commit. Paths are relative to the repository, with "/"."""

    def __init__(self, root: Path, name: str) -> None:
        """root: the folder with `.git`. Raises UsageError if there is no such commit, InputError if git fails."""
        read_ignore_config(GitFolder.of(root))  # raises GitUnreadable, where git would wait at a pipe
        if name.startswith("-"):
            raise UsageError(f"{name!r} is not a revision; name a commit, a branch or a tag.")
        found = _run(("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"), root, timeout_s=QUICK_S)
        if found.returncode:
            raise UsageError(f"There is no revision {name!r} in this repository; name a commit, a branch or a tag.")
        self.root, self._commit = root, found.stdout.decode().strip()

    def contents(self, files: Mapping[str, bytes], limit: int) -> dict[str, bytes]:
        """The content in the commit of those files whose content now, `files`, is not the same.

        b"" for files that are new, that had more than `limit` bytes, or whose object is not in the repository, and for
        those after the first MOST_BYTES.
        """
        found = dict.fromkeys(files, b"")
        askable = [path for path in files if "\n" not in path]
        lines = self._batch("--batch-check", [f"{self._commit}:{path}" for path in askable]).split(b"\n")
        changed: dict[str, str] = {}  # object ids by path
        left = MOST_BYTES
        for path, line in zip(askable, lines, strict=False):
            fields = line.decode("ascii", "replace").split()
            if len(fields) != 3:  # it is missing, or a submodule
                continue
            blob, kind, size = fields
            if blob == _object_id(files[path], len(blob)):
                del found[path]
            elif kind == "blob" and int(size) <= min(limit, left):
                changed[path] = blob
                left -= int(size)
        output = self._batch("--batch", [*changed.values()])
        for path in changed:
            header, _, output = output.partition(b"\n")
            length = int(header.split()[2])
            found[path], output = output[:length], output[length + 1 :]
        return found

    def _batch(self, option: str, names: Sequence[str]) -> bytes:
        if not names:
            return b""
        input = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
        return _checked(("cat-file", option), self.root, input)


def _object_id(content: bytes, digits: int) -> str:
    """The id that git gives to a file, in a repository whose ids have so many digits."""
    algorithm = hashlib.sha256 if digits == 64 else hashlib.sha1
    return algorithm(b"blob %d\0" % len(content) + content).hexdigest()


def diff(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> str:
    """A diff without context, as git writes it, of files with the same names. Ignores carriage returns at line ends.

    The files are compared in a folder outside every repository, so that no attributes apply.
    """
    with TemporaryDirectory(prefix="gesso-") as name:
        folder = Path(name).resolve()
        for side, files in (("a", before), ("b", after)):
            (folder / side).mkdir()
            for path, content in files.items():
                (folder / side / path).write_bytes(content)
        options = "diff --no-index --unified=0 --no-color --no-ext-diff --no-textconv --no-renames --text".split()
        command = (*options, "--ignore-cr-at-eol", "--no-prefix", "a", "b")
        done = _run(command, folder, more={"GIT_CEILING_DIRECTORIES": str(folder.parent)})
        if done.returncode not in (0, 1):
            raise _failed(folder, done)
        return done.stdout.decode("utf-8", "replace")


def _checked(arguments: Sequence[str], folder: Path, input: bytes = b"") -> bytes:
    """The output of git; raises InputError if it fails."""
    done = _run(arguments, folder, input)
    if done.returncode:
        raise _failed(folder, done)
    return done.stdout


def _run(
    arguments: Sequence[str],
    folder: Path,
    input: bytes = b"",
    more: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in REPOSITORY_VARIABLES}
    environment |= {**ENVIRONMENT, **(more or {})}
    try:
        return subprocess.run(
            [*SAFE, *arguments],
            cwd=folder,
            env=environment,
            input=input,
            capture_output=True,
            timeout=timeout_s,
            preexec_fn=_limit_memory,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"git took longer than {timeout_s:.0f} s in {folder}; try `git status` there.") from error
    except OSError as error:
        raise InputError(f"{folder} is in a git repository, but git cannot be run; install git.") from error


def _limit_memory() -> None:
    """In the process of git. Packs that it maps do not count."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))


def _failed(folder: Path, done: subprocess.CompletedProcess[bytes]) -> InputError:
    line = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
    return InputError(f"git cannot read the repository of {folder} ({line}); try `git status` there.")

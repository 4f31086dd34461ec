"""Decides which files are never read nor sent: secrets, ignored files, and files that programs write.

A file named like a secret is refused by its name alone. Ignore files are read as git reads them, but without its index:
a file that is both ignored and committed counts as ignored. Must not know the protocol.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from pathspec import GitIgnoreSpec

from infill.code.generated import generated_sign, has_generated_name

SECRET_NAMES = GitIgnoreSpec.from_lines(
    (
        ".env .env.* *.env .envrc !*.example !*.sample !*.template !*.dist "
        "*.pem *.key *.p8 *.p12 *.pfx *.jks *.keystore *.kdb *.kdbx *.gpg *.asc *.ppk *.ovpn "
        "id_rsa* id_dsa* id_ecdsa* id_ed25519* "
        ".netrc _netrc .pgpass .my.cnf .pypirc .npmrc .yarnrc.yml .s3cfg .boto .htpasswd .git-credentials .dockercfg "
        ".vault-token kubeconfig *.kubeconfig *.tfvars *.tfvars.json *.tfstate *.tfstate.* service[-_]account*.json"
    ).split()
)
SECRET_WORDS = re.compile(  # words that mark a data file as secret, but not a code file
    r"(?:.*[._-])?(?:secrets?|credentials?|passwords?|passwd)(?:[._-].*)?"
    r"\.(?:json|toml|ya?ml|ini|cfg|conf|properties|xml|csv|txt)"
    r"|\.?(?:secrets?|credentials?|passwords?|passwd)"
)
SECRET_PATHS = GitIgnoreSpec.from_lines(
    (
        ".ssh/ .aws/ .gnupg/ .kube/ .password-store/ .envs/ **/.config/gcloud/ **/.config/gh/ "
        "**/.docker/config.json **/.azure/*.json"
    ).split()
)
LONGEST = 2_000_000  # characters
GENERATED = {
    "name": "The name of this file says that it is generated.",
    "generated": "The first lines of this file say that it is generated.",
    "minified": "This file looks minified: its lines are too long.",
}


def private_reason(path: str | None, patterns: Sequence[str], folders: Sequence[Path], text: str) -> str | None:
    """Why the file must not be read, as a sentence; None if it may. Reads ignore files on disk, so it blocks.

    patterns: the user's, as in .gitignore, relative to the workspace's `folders`, absolute, or starting with `~`.
    text: the editor's text, used only if the name does not decide.
    """
    if path is not None:
        file = Path(path)
        if named_like_a_secret(file):
            return "Files with this name may hold secrets and are never read."
        if patterns and _matches(file, tuple(patterns), folders):
            return "This file matches a pattern in the setting gesso.disabledPaths."
        if source := ignored_by(file):
            return f"This file is ignored by {source}."
        if has_generated_name(path):
            return GENERATED["name"]
    if len(text) > LONGEST:
        return f"This file is longer than {LONGEST:,} characters."
    sign = generated_sign(None, text)
    return GENERATED[sign] if sign is not None else None


def named_like_a_secret(file: Path) -> bool:
    """Whether the path names keys, credentials or environment files, or lies in a folder of these; case is ignored."""
    name, whole = file.name.lower(), file.as_posix().lower().lstrip("/")
    if SECRET_NAMES.match_file(name) or SECRET_WORDS.fullmatch(name):
        return True
    return SECRET_PATHS.match_file(whole)


def ignored_by(file: Path) -> str | None:
    """The name of the ignore file that ignores this file; None if there is none or no repository.

    As in gitignore(5): the last matching pattern decides; deeper files before shallower ones, then the repository's
    `info/exclude`, then the user's `git/ignore`; nothing in an ignored folder can be re-included.
    """
    root = next((folder for folder in file.parents if (folder / ".git").exists()), None)
    if root is None:
        return None
    steps = file.relative_to(root).parts
    sources = [(0, _users_ignore_file()), (0, _exclude_file(root))]
    sources += [(depth, root.joinpath(*steps[:depth], ".gitignore")) for depth in range(len(steps))]
    read = [(depth, source.name, spec) for depth, source in reversed(sources) if (spec := _spec(source)) is not None]
    for end in range(1, len(steps) + 1):
        for depth, name, spec in read:
            if depth >= end:
                continue
            verdict = _verdict(spec, "/".join(steps[depth:end]) + ("/" if end < len(steps) else ""))
            if verdict:
                return name
            if verdict is not None:
                break
    return None


def _verdict(spec: GitIgnoreSpec, name: str) -> bool | None:
    """The verdict of the last pattern that matches this file or folder itself; its parents were checked before.

    `GitIgnoreSpec.check_file` includes the parents of a file, which differs if folders are re-included: it says that
    `*` and `!*/` ignore every folder.
    """
    for pattern in reversed(spec.patterns):
        if pattern.regex is not None and _matches_itself(pattern.regex, name):
            return bool(pattern.include)
    return None


def _matches_itself(regex: re.Pattern[str], name: str) -> bool:
    contents = regex.pattern.endswith("/")  # `folder/**`
    return any(match.end() < len(name) if contents else match.end() == len(name) for match in regex.finditer(name))


def is_pattern(line: str) -> bool:
    """Whether a line is a valid pattern of an ignore file."""
    try:
        return bool(GitIgnoreSpec.from_lines([line]))
    except ValueError:
        return False


def _users_ignore_file() -> Path:
    """The file that git reads if `core.excludesFile` is not set."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "git" / "ignore"


def _exclude_file(root: Path) -> Path:
    """In a worktree or submodule `.git` is a file that names the repository's folder."""
    folder = root / ".git"
    try:
        if folder.is_file():
            folder = root / folder.read_text("utf-8").removeprefix("gitdir:").strip()
            if (common := folder / "commondir").is_file():
                folder /= common.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pass
    return folder / "info" / "exclude"


def _spec(source: Path) -> GitIgnoreSpec | None:
    try:
        state = source.stat()
        return _read(source, state.st_mtime_ns, state.st_size)
    except OSError:
        return None


@lru_cache(maxsize=500)
def _read(source: Path, modified: int, size: int) -> GitIgnoreSpec:
    return _compiled(source.read_text("utf-8-sig", "replace").split("\n"))


def _compiled(lines: Iterable[str]) -> GitIgnoreSpec:
    """A spec of the valid lines: an invalid one must not disable the others."""
    return GitIgnoreSpec.from_lines([line for line in lines if is_pattern(line)])


def _matches(file: Path, patterns: tuple[str, ...], folders: Sequence[Path]) -> bool:
    """Whether the user's patterns match: relative to the innermost workspace folder first, then the absolute path."""
    spec = _users_spec(patterns)
    within = sorted((folder for folder in folders if file.is_relative_to(folder)), key=lambda folder: len(folder.parts))
    for base in (*reversed(within), Path(file.anchor)):
        verdict = spec.check_file(file.relative_to(base).as_posix()).include
        if verdict is not None:
            return verdict
    return False


@lru_cache(maxsize=20)
def _users_spec(patterns: tuple[str, ...]) -> GitIgnoreSpec:
    return _compiled(os.path.expanduser(pattern) for pattern in patterns)

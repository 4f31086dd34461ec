"""Decides which files are never read: secrets, files that git ignores, and files that the user excludes.

The one decision for every way into Gesso: documents, neighbours, named files and folders. A symbolic link is private if
it, or anything on the way to what it points to, is. A decision that cannot be made counts as private. Must not know
what is done with a file.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from engine.errors import InputError
from infill.git_patterns import IgnoreRules, Pattern
from infill.ignore_files import Verdicts, ignored_by, repository_of

SECRET_NAMES = IgnoreRules.parse(
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
SECRET_PATHS = IgnoreRules.parse(
    (
        ".ssh/ .aws/ .gnupg/ .kube/ .password-store/ .envs/ **/.config/gcloud/ **/.config/gh/ "
        "**/.docker/config.json **/.azure/*.json **/.git/config"
    ).split()
)
SECRET = "Files with this name may hold secrets and are never read."
MOST_LINKS = 40  # on the way to a file, as in Linux


def private_reason(
    path: Path, patterns: Sequence[str] = (), folders: Sequence[Path] = (), known: Verdicts | None = None
) -> str | None:
    """Why the file or folder must not be read, as a sentence; None if it may. Reads ignore files, so it blocks.

    A relative path is that of a document without a file, and only its names count. patterns: the user's, as in
    .gitignore, relative to the workspace's `folders` (outside them, to the repository), absolute, or starting with `~`.
    known: as in `ignored_by`.
    """
    try:
        return decided_reason(path, patterns, folders, known)
    except InputError as error:
        return f"This file is not read: {error}"


def decided_reason(
    path: Path, patterns: Sequence[str] = (), folders: Sequence[Path] = (), known: Verdicts | None = None
) -> str | None:
    """As `private_reason`, but raises InputError if it cannot be decided."""
    try:
        paths = with_link_targets(path) if path.is_absolute() else [path]
        if any(named_like_a_secret(one) for one in paths):
            return SECRET
        if patterns and any(_matches(one, tuple(patterns), folders) for one in paths):
            return "This file matches a pattern in the setting gesso.disabledPaths."
        return _ignored_reason(paths, known) if path.is_absolute() else None
    except (OSError, ValueError) as error:
        raise InputError(f"it is unknown whether git ignores {path} ({error}); check its permissions.") from error


def check_named(path: Path) -> None:
    """Raises InputError if a file that the user named must not be read.

    Naming a file outweighs ignore files, but a link does not name what it points to.
    """
    try:
        absolute = Path(os.path.abspath(path))
        paths = with_link_targets(absolute)
        if any(named_like_a_secret(one) for one in paths):
            raise _named_secret(path)
        if absolute.is_symlink() and (sentence := _ignored_reason(paths[-1:])):
            raise InputError(f"{path} points to {paths[-1]} and was not read. {sentence} Name that file itself.")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} was not read, because its links cannot be followed ({error}); check them.") from error


def check_sent(path: Path) -> None:
    """Raises InputError if a client must not send the text of the file `path`, as `check_named`.

    A relative path is that of a document without a file, and only its names count.
    """
    if path.is_absolute():
        check_named(path)
    elif named_like_a_secret(path):
        raise _named_secret(path)


def _named_secret(path: Path) -> InputError:
    return InputError(f"{path} was not read. {SECRET} Copy it to another name if it holds no secrets.")


def with_link_targets(path: Path) -> list[Path]:
    """The normalized path; each symbolic link in it, and the path after that is followed. The last one has no links.

    Raises OSError for more than MOST_LINKS links.
    """
    found = [Path(os.path.abspath(path))]
    done, waiting, links = Path(path.anchor), list(path.parts[1:]), 0
    while waiting:
        name, *waiting = waiting
        if name == "..":
            done = done.parent
        elif (target := _link_target(done / name)) is None:
            done /= name
        else:
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            found.append(done / name)
            done = Path(done.anchor) if target.startswith("/") else done
            waiting = [part for part in target.split("/") if part not in ("", ".")] + waiting
            found.append(Path(os.path.normpath(done.joinpath(*waiting))))
    return list(dict.fromkeys([*found, done]))


def _link_target(path: Path) -> str | None:
    """None if it is not a link, or does not exist."""
    try:
        return os.readlink(path)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise


def named_like_a_secret(file: Path) -> bool:
    """Whether the path names keys, credentials or environment files, or lies in a folder of these; case is ignored."""
    names = tuple(name.lower() for name in file.parts if name != file.anchor)
    if not names:
        return False
    if SECRET_NAMES.verdict(names[-1:], is_folder=False) or SECRET_WORDS.fullmatch(names[-1]):
        return True
    return SECRET_PATHS.verdict_on_file(names) is True


def is_pattern(line: str) -> bool:
    """Whether a line is a valid pattern of an ignore file."""
    return Pattern.parse(line) is not None


def _ignored_reason(paths: Sequence[Path], known: Verdicts | None = None) -> str | None:
    for one in paths:
        if source := ignored_by(one, one.is_dir(), known):
            return f"This file is ignored by {source}."
    return None


def _matches(file: Path, patterns: tuple[str, ...], folders: Sequence[Path]) -> bool:
    """Whether the user's patterns match: relative to the innermost workspace folder first, then the absolute path."""
    rules = _users_rules(patterns)
    both = {*folders, *(Path(os.path.realpath(folder)) for folder in folders)}
    within = sorted((folder for folder in both if file.is_relative_to(folder)), key=lambda folder: len(folder.parts))
    if not within and file.is_absolute() and (root := repository_of(file)):
        within = [root]
    for base in (*reversed(within), Path(file.anchor)):
        verdict = rules.verdict_on_file(file.relative_to(base).parts)
        if verdict is not None:
            return verdict
    return False


@lru_cache(maxsize=20)
def _users_rules(patterns: tuple[str, ...]) -> IgnoreRules:
    return IgnoreRules.parse(os.path.expanduser(pattern) for pattern in patterns)

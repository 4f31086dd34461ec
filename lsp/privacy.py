"""Decides which files are never read nor sent: secrets, ignored files, and files that programs write.

A file named like a secret is refused by its name alone. Must not know the protocol.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from infill.code.generated import generated_sign, has_generated_name
from infill.ignore_files import IgnoreRules, Pattern, ignored_by

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
    names = tuple(name.lower() for name in file.parts if name != file.anchor)
    if not names:
        return False
    if SECRET_NAMES.verdict(names[-1:], is_folder=False) or SECRET_WORDS.fullmatch(names[-1]):
        return True
    return SECRET_PATHS.verdict_on_file(names) is True


def is_pattern(line: str) -> bool:
    """Whether a line is a valid pattern of an ignore file."""
    return Pattern.parse(line) is not None


def _matches(file: Path, patterns: tuple[str, ...], folders: Sequence[Path]) -> bool:
    """Whether the user's patterns match: relative to the innermost workspace folder first, then the absolute path."""
    rules = _users_rules(patterns)
    within = sorted((folder for folder in folders if file.is_relative_to(folder)), key=lambda folder: len(folder.parts))
    for base in (*reversed(within), Path(file.anchor)):
        verdict = rules.verdict_on_file(file.relative_to(base).parts)
        if verdict is not None:
            return verdict
    return False


@lru_cache(maxsize=20)
def _users_rules(patterns: tuple[str, ...]) -> IgnoreRules:
    return IgnoreRules.parse(os.path.expanduser(pattern) for pattern in patterns)

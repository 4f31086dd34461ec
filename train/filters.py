"""Filters training files by name, by content and by similarity to files kept before.

Must not know packages, registries or models.
"""

from __future__ import annotations

import re
import zlib
from pathlib import PurePosixPath

import numpy as np

from infill.code.generated import VENDORED_FOLDERS, generated_sign, has_generated_name

LANGUAGES = {
    ".py": "python", ".pyi": "python", ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript",
    ".jsx": "javascript", ".ts": "typescript", ".mts": "typescript", ".tsx": "tsx", ".go": "go",
    ".rs": "rust", ".java": "java", ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp",
    ".hpp": "cpp", ".hh": "cpp", ".md": "text", ".rst": "text", ".toml": "text", ".sh": "text",
}  # fmt: skip
DROPPED_FOLDERS = VENDORED_FOLDERS | {
    "build", "locale", "locales", "umd", "cjs", "commonjs", "bundles", "migrations", "testdata",
}  # fmt: skip
BENCHMARKS = re.compile(r"human_?eval|mbpp|santacoder|safim|cross_?code_?eval|repobench|quixbugs", re.I)
EMAIL = re.compile(r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,}")
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")
LONG_STRING = re.compile(r"([:=]\s*[\"'])[A-Za-z0-9+/=_\-]{24,}(?=[\"'])")
SECRET_NAME = re.compile(r"(key|token|secret|passw(or)?d)\w*[\"'\])]*\s*$", re.I)
AWS_KEY = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")
HEX = re.compile(rb"(?:0x|\\x)[0-9a-fA-F]+")
SMALLEST, LARGEST = 200, 200_000


def language_of(path: str) -> str | None:
    """The language of a path by its extension; None if the file is not used for training."""
    pure = PurePosixPath(path)
    if has_generated_name(path, strict=True) or BENCHMARKS.search(path):
        return None
    if DROPPED_FOLDERS & {part.lower() for part in pure.parts[:-1]}:
        return None
    return LANGUAGES.get(pure.suffix.lower())


def reason_to_drop(text: str) -> str | None:
    """Why a text is dropped (size, generated, minified, data, private key); None if it is kept."""
    if not SMALLEST <= len(text) <= LARGEST:
        return "size"
    if sign := generated_sign(None, text, strict=True):
        return sign
    raw = text.encode()
    if len(HEX.sub(b"", raw).translate(None, b"0123456789\"'")) < 0.6 * len(raw):
        return "data"
    if PRIVATE_KEY.search(text):
        return "private key"
    return None


def scrub(text: str) -> str:
    """The text with \\n line ends; e-mail addresses and strings that look like secrets are replaced."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if "@" in text:
        lines = text.split("\n")
        text = "\n".join(EMAIL.sub("user@example.com", line) if "@" in line else line for line in lines)
    text = AWS_KEY.sub("AKIAXXXXXXXXXXXXXXXX", text)

    def hide(found: re.Match[str]) -> str:
        named = SECRET_NAME.search(found.string[max(0, found.start() - 40) : found.start()])
        return found[1] + "x" * 16 if named else found[0]

    return LONG_STRING.sub(hide, text)


PERMUTATIONS, BANDS = 64, 16
_MULTIPLIERS = np.random.default_rng(7).integers(1, 2**63, size=(PERMUTATIONS, 1), dtype=np.uint64) | np.uint64(1)
_OFFSETS = np.random.default_rng(8).integers(0, 2**63, size=(PERMUTATIONS, 1), dtype=np.uint64)


def signature(text: str) -> np.ndarray:
    """MinHash of a text over runs of three stripped, non-empty lines: uint32 [64]."""
    lines = [line for raw in text.split("\n") if (line := raw.strip())]
    runs = {zlib.crc32("\n".join(lines[i : i + 3]).encode()) for i in range(max(1, len(lines) - 2))}
    hashes = np.fromiter(runs, dtype=np.uint64, count=len(runs))
    return ((hashes * _MULTIPLIERS + _OFFSETS) >> np.uint64(32)).min(axis=1).astype(np.uint32)


class Seen:
    """The signatures of the texts kept so far."""

    def __init__(self) -> None:
        self._signatures: list[np.ndarray] = []
        self._buckets: dict[bytes, list[int]] = {}

    def is_new(self, sketch: np.ndarray) -> bool:
        """False if a kept text has an estimated Jaccard similarity above 0.8 with this one; else keeps this one."""
        width = PERMUTATIONS // BANDS
        keys = [bytes([band]) + sketch[band * width : (band + 1) * width].tobytes() for band in range(BANDS)]
        candidates = {index for key in keys for index in self._buckets.get(key, ())}
        if any(np.mean(self._signatures[index] == sketch) > 0.8 for index in candidates):
            return False
        for key in keys:
            self._buckets.setdefault(key, []).append(len(self._signatures))
        self._signatures.append(sketch)
        return True

"""Names and words that many projects use: a widely used name is rarely a misspelling.

FILE has the lists as Bloom filters; train/lint/names.py writes it. Must not know kinds of findings, nor the model.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelError
from engine.files import read_json_object

FILE = Path(__file__).parents[1] / "models" / "lint_names.json"
FALSE_POSITIVE_RATE = 0.01  # of each filter
MIN_WORD = 3  # letters; shorter words are not listed and count as known
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words_of(name: str) -> list[str]:
    """The words in a name, in lower case: `maxItem_count` -> max, item, count."""
    return [word.lower() for word in _WORD.findall(name)]


@dataclass(frozen=True)
class Bloom:
    """A Bloom filter (Bloom 1970): a compact set of strings with false positives and no false negatives."""

    bits: bytes
    hashes: int

    @staticmethod
    def of(members: Collection[str]) -> Bloom:
        """A filter of optimal size for FALSE_POSITIVE_RATE."""
        size = 8 * math.ceil(max(1, len(members)) * -math.log(FALSE_POSITIVE_RATE) / math.log(2) ** 2 / 8)
        hashes = max(1, round(size / max(1, len(members)) * math.log(2)))
        bits = bytearray(size // 8)
        for member in members:
            for at in _positions(member, size, hashes):
                bits[at // 8] |= 1 << at % 8
        return Bloom(bytes(bits), hashes)

    def __contains__(self, member: str) -> bool:
        return all(self.bits[at // 8] >> at % 8 & 1 for at in _positions(member, 8 * len(self.bits), self.hashes))


def _positions(member: str, size: int, hashes: int) -> Iterable[int]:
    """Double hashing (Kirsch and Mitzenmacher 2006)."""
    digest = hashlib.blake2b(member.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    first, second = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") | 1
    return ((first + index * second) % size for index in range(hashes))


@dataclass(frozen=True)
class KnownNames:
    """names: identifiers that several projects use. words: parts of identifiers that do; common: words in many more."""

    names: Bloom
    words: Bloom
    common: Bloom

    @staticmethod
    def read(file: Path = FILE) -> KnownNames | None:
        """The lists in `file`; None if there is none. Raises ModelError if it is damaged."""
        if not file.is_file():
            return None
        try:
            content = read_json_object(file)
            return KnownNames(*(_decoded(content[part]) for part in ("names", "words", "common")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{file} cannot be read ({error}); install Gesso again.") from error

    def write(self, made: dict[str, object], file: Path = FILE) -> None:
        """Stores the lists, with the figures in `made` on where they come from."""
        parts = {"names": self.names, "words": self.words, "common": self.common}
        coded = {
            name: {"hashes": one.hashes, "bits": base64.b64encode(one.bits).decode()} for name, one in parts.items()
        }
        file.write_text(json.dumps({"made": made, **coded}, indent=1) + "\n", "utf-8")

    def familiarity(self, name: str, other: str) -> float:
        """How widely used those words of `name` are that `other` does not have.

        0: a word is unknown. 1: all words are known. 2: all words are common. Plus 1 if the whole name is known.
        """
        words, other_words = words_of(name), words_of(other)
        differing = [word for word in words if word not in other_words] or words
        differing = [word for word in differing if len(word) >= MIN_WORD]
        if not all(word in self.words for word in differing):
            return 0.0
        return 1.0 + all(word in self.common for word in differing) + (name in self.names)


def _decoded(part: dict[str, str | int]) -> Bloom:
    return Bloom(base64.b64decode(str(part["bits"]), validate=True), int(part["hashes"]))

"""Which names and words many projects use: what is known elsewhere is hardly a slip.

`lint_names.json` beside the model's weights holds the lists as Bloom filters (train/lint/names.py writes it). Must not
know kinds of findings, nor the model.
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

FILE = "lint_names.json"
FALSE_SHARE = 0.01  # of names that a filter takes for known and are not
LEAST_WORD = 3  # letters of a word that the lists know; shorter ones count as known
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words_of(name: str) -> list[str]:
    """The words in a name, in small letters: `maxItem_count` -> max, item, count."""
    return [word.lower() for word in _WORD.findall(name)]


@dataclass(frozen=True)
class Bloom:
    """A set of strings in few bits, in which some that were never added seem to be (Bloom 1970)."""

    bits: bytes
    hashes: int

    @staticmethod
    def of(members: Collection[str]) -> Bloom:
        """With FALSE_SHARE, by the optimal size and number of hashes."""
        size = 8 * math.ceil(max(1, len(members)) * -math.log(FALSE_SHARE) / math.log(2) ** 2 / 8)
        hashes = max(1, round(size / max(1, len(members)) * math.log(2)))
        bits = bytearray(size // 8)
        for member in members:
            for at in _places(member, size, hashes):
                bits[at // 8] |= 1 << at % 8
        return Bloom(bytes(bits), hashes)

    def __contains__(self, member: str) -> bool:
        return all(self.bits[at // 8] >> at % 8 & 1 for at in _places(member, 8 * len(self.bits), self.hashes))


def _places(member: str, size: int, hashes: int) -> Iterable[int]:
    """Double hashing (Kirsch and Mitzenmacher 2006)."""
    digest = hashlib.blake2b(member.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    first, second = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") | 1
    return ((first + index * second) % size for index in range(hashes))


@dataclass(frozen=True)
class KnownNames:
    """names: whole identifiers that several projects use. words: of identifiers, the same; common: in far more."""

    names: Bloom
    words: Bloom
    common: Bloom

    @staticmethod
    def read(folder: Path) -> KnownNames | None:
        """The lists of the model in `folder`; None where it has none, ModelError where they cannot be read."""
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            content = json.loads(file.read_text("utf-8"))
            return KnownNames(*(_decoded(content[part]) for part in ("names", "words", "common")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{file} cannot be read ({error}); fetch the model again with `gesso model pull`."
            ) from error

    def write(self, folder: Path, made: dict[str, object]) -> Path:
        """Stores them with what they were made of."""
        parts = {"names": self.names, "words": self.words, "common": self.common}
        coded = {
            name: {"hashes": one.hashes, "bits": base64.b64encode(one.bits).decode()} for name, one in parts.items()
        }
        file = folder / FILE
        file.write_text(json.dumps({"made": made, **coded}, indent=1) + "\n", "utf-8")
        return file

    def familiarity(self, name: str, other: str) -> float:
        """How known that is in `name` which `other` has not: 0 for a word that is not known, 1 where the rarest word is
        known, 2 where it is common, 1 more where the whole name is known."""
        words, others = words_of(name), words_of(other)
        own = [word for word in words if word not in others] or words
        own = [word for word in own if len(word) >= LEAST_WORD]
        if not all(word in self.words for word in own):
            return 0.0
        return 1.0 + all(word in self.common for word in own) + (name in self.names)


def _decoded(part: dict[str, str | int]) -> Bloom:
    return Bloom(base64.b64decode(str(part["bits"]), validate=True), int(part["hashes"]))

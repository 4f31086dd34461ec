"""Makes slips in the tokens of a canvas: a name replaced by another one nearby, an operator by a similar one.

Training on such canvases, without a mark at the slip, teaches the denoiser what lint asks for. The slips follow the
seeded bugs of "Learning to Represent Programs with Graphs" (arXiv 1711.00740) and BugLab (arXiv 2105.12787), on tokens
only. Must not know syntax trees, nor how a canvas is laid out.
"""

from __future__ import annotations

import keyword
import re
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Tokens = NDArray[np.int64]
BEGINS, CONTINUES, EITHER = 1, 2, 3  # role of a token in a name; EITHER: letters without a leading space; 0: none
MAX_SLIPS = 4  # in a canvas
NAME_SHARE = 0.75  # share of names among the slips, if both kinds are possible
SIMILAR = (
    ("==", "!="), ("<", "<="), (">", ">="), ("<", ">"), ("<=", ">="), ("+", "-"), ("*", "/"), ("+=", "-="),
    ("and", "or"), ("&&", "||"), ("True", "False"), ("true", "false"), ("0", "1"), ("1", "2"),
)  # fmt: skip
_NOT_NAMES = frozenset(keyword.kwlist) | frozenset(
    "async await bool boolean break case catch char class const continue default delete do double else enum export "
    "extends extern final float fn for func function go if impl implements import in int interface let long match mod "
    "mut namespace new null nil package private protected pub public return self short static struct super switch this "
    "throw throws trait true false try type typedef typeof undefined union unsigned use using var virtual void while "
    "yield".split()
)


class Slips:
    """Makes slips in tokens of a byte-level tokenizer whose tokens never mix words with other characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = tokenizer.get_vocab()
        self.role = np.zeros(max(pieces.values()) + 1, dtype=np.int8)
        self.keyword = np.zeros(len(self.role), dtype=bool)
        for piece, token in pieces.items():
            word = piece.removeprefix("Ġ")
            if re.fullmatch(r"[A-Za-z_]+", word):
                self.role[token] = BEGINS if piece.startswith("Ġ") else EITHER
                self.keyword[token] = word in _NOT_NAMES
            elif re.fullmatch(r"[0-9]", piece):
                self.role[token] = CONTINUES
        self.similar: dict[int, list[int]] = defaultdict(list)
        for one, other in SIMILAR:
            for space in ("", "Ġ"):
                if (a := pieces.get(space + one)) is not None and (b := pieces.get(space + other)) is not None:
                    self.similar[a].append(b)
                    self.similar[b].append(a)

    def names(self, tokens: Tokens) -> list[tuple[int, int]]:
        """[first, last) of every name in `tokens`, without keywords and names that may be cut off at the edges."""
        found, start = [], -1
        roles = self.role[tokens]
        for at, role in enumerate(roles):
            inside = start >= 0 and role in (EITHER, CONTINUES)
            if inside:
                continue
            if start >= 0:
                found.append((start, at))
            start = at if role in (BEGINS, EITHER) else -1
        return [(a, b) for a, b in found if a > 0 and not (b == a + 1 and self.keyword[tokens[a]])]

    def slipped(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        """A copy with at most MAX_SLIPS slips, often none. A name is replaced by another of the same token count."""
        shown = tokens.copy()
        groups: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for first, last in self.names(tokens):
            groups[last - first, int(self.role[tokens[first]])].append((first, last))
        names = [name for group in groups.values() for name in group]
        operators = [at for at, token in enumerate(tokens.tolist()) if token in self.similar]
        for _ in range(int(rng.integers(MAX_SLIPS + 1))):
            if names and (not operators or rng.random() < NAME_SHARE):
                first, last = names[rng.integers(len(names))]
                group = groups[last - first, int(self.role[tokens[first]])]
                other = group[rng.integers(len(group))]
                shown[first:last] = tokens[slice(*other)]
            elif operators:
                at = operators[rng.integers(len(operators))]
                choices = self.similar[int(tokens[at])]
                shown[at] = choices[rng.integers(len(choices))]
        return shown

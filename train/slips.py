"""Slips as people make them, in the tokens of a canvas: a name for another one nearby, an operator for one like it.

What the denoiser learns from such a canvas, with nothing said of where the slip is, is what lint asks of it. As the
seeded bugs of "Learning to Represent Programs with Graphs" (arXiv 1711.00740) and BugLab (arXiv 2105.12787), on tokens
alone. Must not know of syntax trees, nor how a canvas is laid out.
"""

from __future__ import annotations

import keyword
import re
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Tokens = NDArray[np.int64]
OTHER, BEGINS, GOES_ON, MAY_BEGIN = 0, 1, 2, 3  # what a token is in a name; MAY_BEGIN: letters without a space before
MOST = 4  # slips in a canvas
NAME_SHARE = 0.75  # of the slips where both sorts are possible
ALIKE = (
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
    """Makes slips in tokens of one byte-level tokenizer whose tokens are words or no words, never both."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = tokenizer.get_vocab()
        self.role = np.zeros(max(pieces.values()) + 1, dtype=np.int8)
        self.keyword = np.zeros(len(self.role), dtype=bool)
        for piece, token in pieces.items():
            word = piece.removeprefix("Ġ")
            if re.fullmatch(r"[A-Za-z_]+", word):
                self.role[token] = BEGINS if piece.startswith("Ġ") else MAY_BEGIN
                self.keyword[token] = word in _NOT_NAMES
            elif re.fullmatch(r"[0-9]", piece):
                self.role[token] = GOES_ON
        self.alike: dict[int, list[int]] = defaultdict(list)
        for one, other in ALIKE:
            for space in ("", "Ġ"):
                if (a := pieces.get(space + one)) is not None and (b := pieces.get(space + other)) is not None:
                    self.alike[a].append(b)
                    self.alike[b].append(a)

    def names(self, tokens: Tokens) -> list[tuple[int, int]]:
        """[first, last) of every name in `tokens`, but for keywords, and for what may be cut off at the edges."""
        found, start = [], -1
        roles = self.role[tokens]
        for at, role in enumerate(roles):
            inside = start >= 0 and role in (MAY_BEGIN, GOES_ON)
            if inside:
                continue
            if start >= 0:
                found.append((start, at))
            start = at if role in (BEGINS, MAY_BEGIN) else -1
        return [(a, b) for a, b in found if a > 0 and not (b == a + 1 and self.keyword[tokens[a]])]

    def slipped(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        """A copy with up to MOST slips, often none: names in place of others of as many tokens, alike operators."""
        shown = tokens.copy()
        groups: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for first, last in self.names(tokens):
            groups[last - first, int(self.role[tokens[first]])].append((first, last))
        places = [place for group in groups.values() for place in group]
        operators = [at for at, token in enumerate(tokens.tolist()) if token in self.alike]
        for _ in range(int(rng.integers(MOST + 1))):
            if places and (not operators or rng.random() < NAME_SHARE):
                first, last = places[rng.integers(len(places))]
                group = groups[last - first, int(self.role[tokens[first]])]
                taken = group[rng.integers(len(group))]
                shown[first:last] = tokens[slice(*taken)]
            elif operators:
                at = operators[rng.integers(len(operators))]
                choices = self.alike[int(tokens[at])]
                shown[at] = choices[rng.integers(len(choices))]
        return shown

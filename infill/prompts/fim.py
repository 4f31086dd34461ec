"""Fill-in-the-middle prompts of autoregressive code models, laid out so that a keystroke adds a token.

Source of the format: the Qwen2.5-Coder technical report (arXiv 2409.12186), section 3.2. The text before the hole is
cut at an anchor, the start of a line some lines above. What comes after the anchor is given as the beginning of the
middle: the cut may be anywhere in training too, and the suffix, which comes before it, need not be read again. Must not
know how a hole is decoded or judged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from infill.code.context import ContextBudget, ShownContext
from infill.prompts.prompt import HoleKind, cut_front, suffix_texts
from infill.prompts.text_tokens import TextTokens

ANCHOR_LINES = 8  # the anchor is at a line whose number is a multiple of this
CLOSERS = re.compile(r"[\s)\]}>,;:\"'`]*\Z")
# The end of a text that the next token may join, by the pre-tokenizer of Qwen2: a word with the character before it,
# a run of punctuation with the space before it, or one white space.
JOINABLE = re.compile(r"(?:(?:[^\r\n\w]|_)?[^\W\d_]+| ?(?:[^\s\w]|_)+|[ \t])\Z")
LONGEST_JOINABLE = 24  # characters
MOST_TOKENS_PER_CHARACTER = 0.5  # of the budget; code has 0.3, other scripts and emoji up to 3
PATH_CHARACTERS = 200


@dataclass(frozen=True)
class FimInput:
    """tokens: the prompt, which ends with the known part of the middle. held: the end of the text before the hole that
    the continuation must spell again. plain: the same text in its order, without what follows the hole."""

    tokens: list[int]
    held: str
    plain: list[int]


class FimPrompt:
    """The prompt format of one model. budget: characters to show of each part. rows: of the model's head.

    ends: tokens that end the middle. banned: tokens that are never written.
    """

    def __init__(self, tokens: TextTokens, budget: ContextBudget, rows: int) -> None:
        self.tokens, self.budget = tokens, budget
        self.prefix, self.suffix = tokens.special("<|fim_prefix|>"), tokens.special("<|fim_suffix|>")
        self.middle, self.separator = tokens.special("<|fim_middle|>"), tokens.special("<|file_sep|>")
        self.ends = frozenset(tokens.specials)
        unused = [token for token, piece in enumerate(tokens.bytes_of) if not piece and token not in self.ends]
        self.banned = (*unused, *range(len(tokens.bytes_of), rows))

    def fill(self, context: ShownContext, kind: HoleKind) -> FimInput:
        """The prompt for one hole, with at most MOST_TOKENS_PER_CHARACTER of the budget of each part."""
        before, suffix = context.prefix, suffix_texts([kind], [context.suffix])[0]
        at = anchor(before)
        held = joinable(before[at:])
        known = self.tokens.encode(before[at : len(before) - len(held)])
        limit, breaks = _most_tokens(self.budget.prefix), self._line_breaks
        known = cut_front(known, limit, breaks)
        far = cut_front(self.tokens.encode(before[:at]), limit - len(known), breaks)
        head = [*self._files(context), self.prefix, *far]
        after = self.tokens.encode(_without_closers(suffix))[: _most_tokens(self.budget.suffix)]
        plain = [*head, *known]
        if len(plain) == 1:  # of an empty file; what follows a prompt is read after two tokens at least
            plain = [self.separator, *plain]
        return FimInput([*head, self.suffix, *after, self.middle, *known], held, plain)

    def allowed(self, held: str, written: Sequence[int]) -> list[int] | None:
        """The tokens that may follow `written` until all of `held` is spelled; None once it is."""
        rest = held.encode()
        for token in written:
            piece = self.tokens.bytes_of[token]
            if len(piece) >= len(rest):
                return None
            rest = rest[len(piece) :]
        if not rest:
            return None
        found = self.tokens.starting_with(rest).tolist()
        return [*found, *(token for end in range(1, len(rest)) for token in self._pieces.get(rest[:end], ()))]

    @cached_property
    def _line_breaks(self) -> frozenset[int]:
        return frozenset(self.tokens.line_breaks)

    @cached_property
    def _pieces(self) -> dict[bytes, tuple[int, ...]]:
        found: dict[bytes, tuple[int, ...]] = {}
        for token, piece in enumerate(self.tokens.bytes_of):
            if piece:
                found[piece] = (*found.get(piece, ()), token)
        return found

    def _files(self, context: ShownContext) -> list[int]:
        """What is shown of other files, and the path of this one, as files of a repository."""
        parts = []
        if context.header:
            parts += [self.separator, *self.tokens.encode(context.header)[: _most_tokens(self.budget.header)]]
        if context.path:
            parts += [self.separator, *self.tokens.encode(context.path[-PATH_CHARACTERS:] + "\n")]
        return parts


def _most_tokens(characters: int) -> int:
    return int(MOST_TOKENS_PER_CHARACTER * characters)


def anchor(before: str) -> int:
    """The offset of the last line of `before` whose number is a multiple of ANCHOR_LINES, the hole's own line left
    out."""
    lines = before.count("\n")
    skipped = lines % ANCHOR_LINES or ANCHOR_LINES
    at = len(before)
    for _ in range(skipped + 1):
        at = before.rfind("\n", 0, at)
        if at < 0:
            return 0
    return at + 1


def joinable(text: str) -> str:
    """The end of `text` that the next token may join."""
    match = JOINABLE.search(text, max(0, len(text) - LONGEST_JOINABLE))
    return match[0] if match else ""


def _without_closers(suffix: str) -> str:
    """The text after the hole, without the rest of its line if that is nothing but closing brackets and quotes, which
    editors insert while the user types."""
    rest, newline, following = suffix.partition("\n")
    return newline + following if rest and CLOSERS.match(rest) else suffix

"""The pocket model's own layout, the one it is trained with (train/layout.py).

prompt = <bos> <language> <|suffix|> far suffix <|prefix|> header, far prefix; canvas = near prefix, holes,
near suffix.
"""

from __future__ import annotations

from collections.abc import Sequence

from infill.context import ContextBudget, ShownContext
from infill.prompt import Layout, TextHole, anchor, build_canvas, cut_front, split_suffix, suffix_texts
from infill.text_tokens import TextTokens

PROMPT, FAR_SUFFIX, HEADER = 320, 96, 64
NEAR_PREFIX, NEAR_SUFFIX = 48, 40


class PocketPrompt:
    """See `infill.prompt.Family`."""

    max_canvas = 160
    slots = (32, 64)
    budget = ContextBudget(prefix=1400, suffix=600, header=260)

    def __init__(self, tokens: TextTokens) -> None:
        self.tokens = tokens
        self.null_token: int | None = tokens.special("<|null|>")
        self.bos = tokens.special("<bos>")
        self.suffix_mark, self.prefix_mark = tokens.special("<|suffix|>"), tokens.special("<|prefix|>")
        self.unwanted = tuple(token for token in tokens.specials if token != self.null_token)
        self.line_breaks = frozenset(tokens.line_breaks)

    def lay_out(
        self,
        context: ShownContext,
        holes: Sequence[TextHole],
        between: Sequence[str],
        slots: Sequence[int],
        drafts: Sequence[Sequence[int | None]] | None = None,
    ) -> Layout:
        prefix = self.tokens.encode(context.prefix)
        start = anchor(prefix, self.line_breaks, NEAR_PREFIX)
        runs = [self.tokens.encode(text) for text in suffix_texts(holes, [*between, context.suffix])]
        runs[-1], far_suffix = split_suffix(runs[-1], self.line_breaks, NEAR_SUFFIX, FAR_SUFFIX)
        canvas, columns = build_canvas(self.tokens, [], prefix[start:], holes, runs, slots, drafts)
        header = self.tokens.encode(context.header)[:HEADER] if context.header else []
        room = PROMPT - 4 - len(far_suffix) - len(header)
        far_prefix = cut_front(prefix[:start], room, self.line_breaks)
        head = [self.bos, self._language(context.language), self.suffix_mark]
        prompt = [*head, *far_suffix, self.prefix_mark, *header, *far_prefix]
        one_line = all(hole.one_line for hole in holes)
        banned = self.unwanted + tuple(self.line_breaks) if one_line else self.unwanted
        return Layout(prompt, canvas, columns, banned)

    def _language(self, language: str | None) -> int:
        token = self.tokens.tokenizer.token_to_id(f"<|{language}|>") if language else None
        return self.tokens.special("<|text|>") if token is None else token

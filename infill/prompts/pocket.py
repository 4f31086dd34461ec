"""The prompt of the pocket model, as in its training (train/layout.py).

prompt = <bos> <language> <|suffix|> far suffix <|prefix|> header, far prefix; canvas = near prefix, holes, near suffix.
For the causal encoder alone: <bos> <language> <|suffix|> suffix <|prefix|> header, prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelError
from engine.files import read_json_object
from infill.code.context import ContextBudget, ShownContext
from infill.prompts.prompt import (
    CausalPrompt,
    HoleKind,
    InstructionPrompt,
    LayoutPlan,
    anchor,
    cut_front,
    plan_canvas,
    split_suffix,
    suffix_texts,
    typed_token,
)
from infill.prompts.text_tokens import TextTokens

NEAR_PREFIX, NEAR_SUFFIX = 48, 40
CHARACTERS = 4.375  # upper bound of the characters per token; text beyond the window would be encoded for nothing
CONTINUATION = 64  # tokens
MOST = 1 << 16  # tokens of a part of the window


@dataclass(frozen=True)
class Window:
    """Sizes in tokens in the model's training (`gesso.window` in its config.json)."""

    prompt: int = 320
    far_suffix: int = 96
    header: int = 64
    canvas: int = 128

    @staticmethod
    def read(folder: Path) -> Window:
        """Raises ModelError if config.json has other sizes than those below MOST."""
        file = folder / "config.json"
        try:
            window = Window(**((read_json_object(file).get("gesso") or {}).get("window") or {}))
        except (OSError, ValueError, TypeError, AttributeError) as reason:
            raise ModelError(f"{file} has no usable gesso.window ({reason}); fetch the model again.") from reason
        if not all(type(size) is int and 0 <= size <= MOST for size in vars(window).values()):
            raise ModelError(f"{file} has a gesso.window that is too large; fetch the model again.")
        return window


class PocketPrompt:
    """See `infill.prompts.prompt.Family`."""

    max_canvas = 160
    grows = False
    slots = (32, 64)

    def __init__(self, tokens: TextTokens, window: Window = Window()) -> None:  # noqa: B008 - frozen
        self.tokens, self.window = tokens, window
        self.budget = ContextBudget(
            prefix=int(CHARACTERS * window.prompt),
            suffix=int(CHARACTERS * (window.far_suffix + NEAR_SUFFIX)),
            header=int(CHARACTERS * window.header),
        )
        self.null_token = tokens.special("<|null|>")
        self.bos = tokens.special("<bos>")
        self.suffix_mark, self.prefix_mark = tokens.special("<|suffix|>"), tokens.special("<|prefix|>")
        self.banned = tuple(token for token in tokens.specials if token != self.null_token)
        self.line_breaks = frozenset(tokens.line_breaks)

    def plan(self, context: ShownContext, holes: Sequence[HoleKind], between: Sequence[str]) -> LayoutPlan:
        prefix = self.tokens.encode(context.prefix)
        start = anchor(prefix, self.line_breaks, NEAR_PREFIX)
        runs = [self.tokens.encode(text) for text in suffix_texts(holes, [*between, context.suffix])]
        runs[-1], far_suffix = split_suffix(runs[-1], self.line_breaks, NEAR_SUFFIX, self.window.far_suffix)
        prompt = self._prompt(context, prefix[:start], far_suffix, self.window.prompt)
        banned = [*self.banned, *(self.line_breaks if all(hole.one_line for hole in holes) else ())]
        return plan_canvas(self.tokens, [], prefix[start:], holes, runs, prompt, banned)

    def causal_prompt(self, context: ShownContext, hole: HoleKind) -> CausalPrompt | None:
        prefix = self.tokens.encode(context.prefix)
        suffix = self.tokens.encode(suffix_texts([hole], [context.suffix])[0])[: self.window.far_suffix]
        typed = typed_token(self.tokens, prefix, hole.one_line)
        known = prefix if typed is None else prefix[:-1]
        limit = self.window.prompt + self.window.canvas - CONTINUATION
        prompt = self._prompt(context, known, suffix, limit)
        text, first = ("", None) if typed is None else (typed.text, typed.choices)
        return CausalPrompt(prompt, text, first, (*self.banned, self.null_token))

    def instruction_prompt(self, text: str) -> InstructionPrompt | None:
        return None

    def _prompt(self, context: ShownContext, prefix: list[int], suffix: list[int], limit: int) -> list[int]:
        """At most `limit` tokens; the front of the prefix is cut."""
        header = self.tokens.encode(context.header)[: self.window.header] if context.header else []
        far_prefix = cut_front(prefix, limit - 4 - len(suffix) - len(header), self.line_breaks)
        head = [self.bos, self._language(context.language), self.suffix_mark]
        return [*head, *suffix, self.prefix_mark, *header, *far_prefix]

    def _language(self, language: str | None) -> int:
        token = self.tokens.tokenizer.token_to_id(f"<|{language}|>") if language else None
        return self.tokens.special("<|text|>") if token is None else token

"""The prompt of masked diffusion models: the file as it is, with masks in the holes.

<begin> prefix, masks, suffix <end>, as in the published evaluation of DreamOn (DreamLM/DreamOn, `eval/generator.py`);
Open-dCoder has neither begin nor end. The prefix is the engine's prompt; masks and suffix are the canvas. A model that
grows and shrinks holes starts with few masks. Must not know how masks are filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.checkpoints.masked import added_tokens, open_config, special_token
from engine.checkpoints.weight_files import FETCH_AGAIN
from engine.errors import ModelError
from infill.code.context import ContextBudget, ShownContext
from infill.prompts.prompt import (
    CausalPrompt,
    HoleKind,
    InstructionPrompt,
    LayoutPlan,
    cut_front,
    plan_canvas,
    split_suffix,
    suffix_texts,
)
from infill.prompts.text_tokens import TextTokens

CONTEXT = 2048  # tokens that Dream and DreamOn were trained with
PREFIX, SUFFIX = 1152, 384  # of these; the rest is for the holes
CHARACTERS = 4  # upper bound of the characters per token
NEAR_PREFIX = 16  # tokens of the prefix on the canvas, for a token that is typed half


@dataclass(frozen=True)
class Marks:
    """Special tokens and sizes of a model. begin, end: around the text; None if the model has none. separator: what
    begins an empty text then. delete: of a model that grows and shrinks holes, else None. rows: of its head. context:
    the longest sequence."""

    begin: int | None
    end: int | None
    separator: int | None
    delete: int | None
    rows: int
    context: int = CONTEXT

    @staticmethod
    def read(folder: Path) -> Marks:
        """Raises ModelError if the files of the tokenizer lack a token that they name."""
        config, added = open_config(folder), added_tokens(folder)
        name = special_token(folder, "bos_token")
        if name is not None and name not in added:
            raise ModelError(f"The tokenizer in {folder} has no token {name}; {FETCH_AGAIN}.")
        begin = None if name is None else added[name]
        separator = added.get(special_token(folder, "eos_token") or "")
        end = None if begin is None else separator
        return Marks(begin, end, separator, config.delete, config.vocab_size, min(CONTEXT, config.max_positions))


class MaskedPrompt:
    """See `infill.prompts.prompt.Family`."""

    def __init__(self, tokens: TextTokens, marks: Marks) -> None:
        self.tokens, self.marks = tokens, marks
        self.max_canvas = marks.context
        self.null_token = marks.delete
        self.grows = marks.delete is not None
        self.slots = (8, 24) if self.grows else (32, 64)
        share = marks.context / CONTEXT
        self.prefix, self.suffix = int(PREFIX * share), int(SUFFIX * share)
        self.budget = ContextBudget(prefix=CHARACTERS * self.prefix, suffix=CHARACTERS * self.suffix, header=0)
        added = tokens.tokenizer.get_added_tokens_decoder()
        unwritten = [token for token, piece in enumerate(tokens.bytes_of) if not piece]
        banned = {*added, *unwritten, *range(len(tokens.bytes_of), marks.rows)} - {marks.delete}
        self.banned = tuple(sorted(token for token in banned if token is not None and token < marks.rows))
        self.line_breaks = frozenset(tokens.line_breaks)

    def plan(self, context: ShownContext, holes: Sequence[HoleKind], between: Sequence[str]) -> LayoutPlan:
        prefix = cut_front(self.tokens.encode(context.prefix), self.prefix, self.line_breaks)
        runs = [self.tokens.encode(text) for text in suffix_texts(holes, [*between, context.suffix])]
        runs[-1] = split_suffix(runs[-1], self.line_breaks, self.suffix, 0)[0]
        if self.marks.end is not None:
            runs[-1] = [*runs[-1], self.marks.end]
        first = self.marks.begin if self.marks.begin is not None or prefix else self.marks.separator
        begin = [] if first is None else [first]
        at = max(0, len(prefix) - NEAR_PREFIX)
        banned = [*self.banned, *(self.line_breaks if all(hole.one_line for hole in holes) else ())]
        return plan_canvas(self.tokens, [], prefix[at:], holes, runs, [*begin, *prefix[:at]], banned)

    def causal_prompt(self, context: ShownContext, hole: HoleKind) -> CausalPrompt | None:
        """The model does not write one way."""
        return None

    def instruction_prompt(self, text: str) -> InstructionPrompt | None:
        return None

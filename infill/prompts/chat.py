"""The prompt of the released DiffusionGemma-26B-A4B: a user turn with the file, then a canvas with pinned code.

prompt = <bos><|turn>user instruction, far suffix, far prefix <turn|><|turn>model and an empty thinking channel.
canvas = code fence, near prefix, holes, near suffix. The far prefix comes last, so that typing extends the prompt.
The wording is this project's own; the special tokens are those of the model's chat template.
"""

from __future__ import annotations

from collections.abc import Sequence

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
)
from infill.prompts.text_tokens import TextTokens

PROMPT, FAR_SUFFIX = 6144, 2048
NEAR_PREFIX, NEAR_SUFFIX = 72, 56
HEADER, PATH_CHARACTERS = 1_500, 200  # tokens, of scripts with several tokens per character; characters
FENCE = "```"


class ChatPrompt:
    """See `infill.prompts.prompt.Family`."""

    max_canvas = 256
    grows = False
    slots = (32, 96)
    budget = ContextBudget(prefix=14_000, suffix=6_000, header=3_000)

    def __init__(self, tokens: TextTokens) -> None:
        self.tokens = tokens
        self.null_token: int | None = None
        self.bos = tokens.special("<bos>")
        self.turn, self.turn_end = tokens.special("<|turn>"), tokens.special("<turn|>")
        self.channel, self.channel_end = tokens.special("<|channel>"), tokens.special("<channel|>")
        self.line_breaks = frozenset(tokens.line_breaks)

    def plan(self, context: ShownContext, holes: Sequence[HoleKind], between: Sequence[str]) -> LayoutPlan:
        prefix = self.tokens.encode(context.prefix)
        start = anchor(prefix, self.line_breaks, NEAR_PREFIX)
        runs = [self.tokens.encode(text) for text in suffix_texts(holes, [*between, context.suffix])]
        runs[-1], far_suffix = split_suffix(runs[-1], self.line_breaks, NEAR_SUFFIX, FAR_SUFFIX)
        language = context.language or ""
        if not far_suffix:
            ends_line = context.suffix.endswith("\n") or (holes[-1].whole_lines and not context.suffix)
            close = FENCE if ends_line else f"\n{FENCE}"
            runs[-1] = [*runs[-1], *self.tokens.encode(close), self.turn_end]
        lead = self.tokens.encode(f"{FENCE}{language}\n")
        head = [
            self.bos,
            self.turn,
            *self.tokens.encode(f"user\n{self._instruction(context)}\n{FENCE}{language}\n"),
            *far_suffix,
            *self.tokens.encode(f"\n{FENCE}\nThe code before it:\n{FENCE}{language}\n"),
        ]
        tail = [*self.tokens.encode(f"\n{FENCE}"), *self._model_turn()]
        far_prefix = cut_front(prefix[:start], PROMPT - len(head) - len(tail), self.line_breaks)
        prompt = [*head, *far_prefix, *tail]
        banned = [*self.tokens.specials, *(self.line_breaks if all(hole.one_line for hole in holes) else ())]
        return plan_canvas(self.tokens, lead, prefix[start:], holes, runs, prompt, banned)

    def causal_prompt(self, context: ShownContext, hole: HoleKind) -> CausalPrompt | None:
        return None

    def instruction_prompt(self, text: str) -> InstructionPrompt | None:
        """A user turn, cut to PROMPT tokens."""
        user = self.tokens.encode(f"user\n{text}")[:PROMPT]
        ends = (self.turn_end, self.tokens.special("<eos>"), self.tokens.special("<pad>"))
        banned = tuple(token for token in self.tokens.specials if token not in ends)
        return InstructionPrompt([self.bos, self.turn, *user, *self._model_turn()], ends, banned)

    def _model_turn(self) -> list[int]:
        """The end of the user turn and the beginning of the model turn, whose empty thinking channel skips thinking."""
        encode = self.tokens.encode
        turn = [self.turn_end, *encode("\n"), self.turn, *encode("model\n")]
        return [*turn, self.channel, *encode("thought\n"), self.channel_end]

    def _instruction(self, context: ShownContext) -> str:
        name = f" {context.path[-PATH_CHARACTERS:]}" if context.path else ""
        header = self.tokens.decode(self.tokens.encode(context.header)[:HEADER])
        outline = f"\nOutline of the rest:\n{FENCE}\n{header}\n{FENCE}" if header else ""
        return (
            f"Continue the file{name} from where the code before ends until the code after begins. "
            f"Write only the code that belongs there.{outline}\nThe code after it:"
        )

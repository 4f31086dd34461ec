"""Instructions to code models that were trained on ChatML, the chat format of Qwen2.

The prompt ends with an opened code fence, so that the answer begins with code. The instruction comes last: another
instruction for the same selection reads only what follows the code. The wording is this project's own; the special
tokens are those of the chat template that comes with the model. Must not know how an answer is decoded or judged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from infill.code.context import ShownContext
from infill.prompts.text_tokens import TextTokens

MARK = "<|im_start|>"  # what a chat template in this format contains
SYSTEM = (
    "You edit code. You get a part of a file and an instruction, and answer with the new code of that part in one code "
    "block, without explanations."
)


@dataclass(frozen=True)
class EditInput:
    """tokens: the prompt, which ends with an opened fence and the known beginning of the code. fence: closes it."""

    tokens: list[int]
    fence: str


class ChatMlPrompt:
    """The prompt format of one model."""

    def __init__(self, tokens: TextTokens) -> None:
        self.tokens = tokens
        self.start, self.end = tokens.special(MARK), tokens.special("<|im_end|>")

    def edit(self, context: ShownContext, code: str, known: str, instruction: str) -> EditInput:
        """The prompt for new code in place of `code`, between the prefix and suffix of `context`.

        known: the beginning of the new code.
        """
        fence = fence_for(context.prefix, code, context.suffix, context.header)
        opened = f"{fence}{context.language or ''}\n"

        def block(text: str) -> str:
            return f"{opened}{text.strip(chr(10))}\n{fence}\n"

        parts = []
        if context.header:
            parts.append(f"Other code of the project:\n{block(context.header)}")
        name = f"The file {context.path}, above" if context.path else "The file above"
        if context.prefix.strip():
            parts.append(f"{name} the selected code:\n{block(context.prefix)}")
        if context.suffix.strip():
            parts.append(f"Below the selected code:\n{block(context.suffix)}")
        parts.append(f"The selected code:\n{block(code)}")
        parts.append(
            f"Rewrite the selected code: {instruction.strip()}\n"
            "Write all of the selected code with this change, and none of the code above or below it."
        )
        encode = self.tokens.encode
        turns = [("system", SYSTEM), ("user", "\n".join(parts))]
        prompt = [
            token for role, text in turns for token in (self.start, *encode(f"{role}\n{text}"), self.end, *encode("\n"))
        ]
        return EditInput([*prompt, self.start, *encode(f"assistant\n{opened}{known}")], fence)


def fence_for(*texts: str) -> str:
    """A fence of backticks that is longer than any in the texts."""
    longest = max((len(run) for text in texts for run in re.findall("`{3,}", text)), default=2)
    return "`" * (longest + 1)

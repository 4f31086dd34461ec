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
SYSTEM = "You are an expert programmer who edits code."
REVIEWER = "You are an expert programmer who reviews code."
TASK = (
    "Answer with the whole selected part after the change, from its first line to its last. Do not repeat the rest of "
    "the file, and do not add examples."
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

    def edit(self, context: ShownContext, lines: str, code: str, known: str, instruction: str) -> EditInput:
        """The prompt for new code in place of `lines`, which are between the prefix and the suffix of `context`.

        code: the lines without their common indentation. known: the beginning of the new code.
        """
        file = f"{context.prefix}{lines}{context.suffix}"
        fence = fence_for(file, context.header)
        opened = f"{fence}{context.language or ''}\n"

        def block(text: str) -> str:
            return f"{opened}{text.strip(chr(10))}\n{fence}\n"

        others = f"Other code of the project:\n{block(context.header)}\n" if context.header else ""
        user = (
            f"{others}This is {context.path or 'a file'}:\n{block(file)}\n"
            f"This part of it is selected:\n{block(code)}\n"
            f"Change the selected part: {instruction.strip()}\n{TASK}"
        )
        return EditInput(self._prompt(SYSTEM, user, f"{opened}{known}"), fence)

    def question(self, text: str, known: str) -> list[int]:
        """The prompt for an answer in words. known: the beginning of the answer."""
        return self._prompt(REVIEWER, text, known)

    def _prompt(self, system: str, user: str, known: str) -> list[int]:
        encode, prompt = self.tokens.encode, list[int]()
        for role, text in (("system", system), ("user", user)):
            prompt += [self.start, *encode(f"{role}\n{text}"), self.end, *encode("\n")]
        return [*prompt, self.start, *encode(f"assistant\n{known}")]


def fence_for(*texts: str) -> str:
    """A fence of backticks that is longer than any in the texts."""
    longest = max((len(run) for text in texts for run in re.findall("`{3,}", text)), default=2)
    return "`" * (longest + 1)

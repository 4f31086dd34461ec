"""A filling decoded token by token by the causal encoder, with the text after the hole in its prompt.

Fill-in-the-middle as in autoregressive models, suffix first (arXiv 2207.14255), with the same weights. One candidate
beside the denoised canvas. Must not know how candidates are judged.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from engine.autoregressive import follow_greedily
from engine.token_tree import TokenTree
from infill.checks.context import indent_of
from infill.prompts.prompt import CausalPrompt, Family, HoleKind

LINE_TOKENS, BLOCK_TOKENS = 40, 64


@dataclass(frozen=True)
class CausalDraft:
    """text: for the hole. decoded: all decoded text, including `text`."""

    text: str
    decoded: str = ""


def causal_draft(
    tree: TokenTree,
    family: Family,
    prompt: CausalPrompt,
    kind: HoleKind,
    before: str,
    deadline: float | None = None,
) -> CausalDraft:
    """Continues `prompt`, whose keys `tree` holds, greedily to the end of the line, or of the block by indentation.

    deadline: time.monotonic(), when decoding stops.
    """
    line_prefix = before[before.rfind("\n") + 1 :]
    text_of = partial(_text, family, prompt)

    def stop(tokens: Sequence[int]) -> bool:
        if deadline is not None and time.monotonic() >= deadline:
            return True
        text = text_of(tokens)
        return "\n" in text if kind.one_line else block_end(line_prefix + text) is not None

    limit = LINE_TOKENS if kind.one_line else BLOCK_TOKENS
    banned = torch.tensor(prompt.banned)
    tokens, _ = follow_greedily(tree, prompt.tokens, limit, stop, banned, prompt.first)
    text = decoded = text_of(tokens)
    if kind.one_line:
        text = text.partition("\n")[0]
    elif (end := block_end(line_prefix + text)) is not None:
        text = text[: max(0, end - len(line_prefix))]
    text = text.partition("\ufffd")[0]
    if kind.whole_lines:
        text = text.rstrip() + "\n" if text.strip() else ""
    return CausalDraft(text, decoded)


def _text(family: Family, prompt: CausalPrompt, tokens: Sequence[int]) -> str:
    return family.tokens.decode(tokens).removeprefix(prompt.typed)


def block_end(text: str) -> int | None:
    """The end of the block that begins with the first line of code: before a line indented less, or two blank lines.

    None if the block may continue.
    """
    base: int | None = None
    at, blank = 0, 0
    for line in text.splitlines(keepends=True):
        whole = line.endswith("\n")
        if not line.strip():
            blank += whole
            if blank >= 2 and base is not None:
                return len(text[:at].rstrip()) + 1
        else:
            width = len(indent_of(line).expandtabs(8))
            if base is not None and width < base:
                return at
            base, blank = width if base is None else base, 0
        at += len(line)
    return None

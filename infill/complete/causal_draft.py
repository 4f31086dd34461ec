"""A filling written token by token by the causal encoder, with the text after the hole in its prompt.

The same weights in another order of writing: fill-in-the-middle as autoregressive models do it (arXiv 2207.14255, the
suffix first). It is one candidate beside the denoised canvas. Must not know how candidates are judged.
"""

from __future__ import annotations

import re
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
    """The text for the hole, and the log-probability of every token that was decoded for it, in nats.

    written: all that was decoded, before anything was cut off.
    """

    text: str
    log_probabilities: tuple[float, ...]
    written: str = ""


def causal_draft(
    tree: TokenTree,
    family: Family,
    prompt: CausalPrompt,
    kind: HoleKind,
    before: str,
    after: str,
    deadline: float | None = None,
) -> CausalDraft:
    """The greedy continuation of `prompt`, which `tree` stands behind: to the end of the line, or of the block by
    indentation.

    deadline: time.monotonic() after which decoding stops where it is.
    """
    line_prefix = before[before.rfind("\n") + 1 :]
    decoded = partial(_text, family, prompt)

    def stop(tokens: Sequence[int]) -> bool:
        if deadline is not None and time.monotonic() >= deadline:
            return True
        text = decoded(tokens)
        return "\n" in text if kind.one_line else block_end(line_prefix + text) is not None

    first = torch.tensor(prompt.first) if prompt.first else None
    limit = LINE_TOKENS if kind.one_line else BLOCK_TOKENS
    banned = torch.tensor(prompt.banned)
    tokens, scores = follow_greedily(tree, prompt.tokens, limit, stop, banned, first)
    text = written = decoded(tokens)
    if kind.one_line:
        text = text.partition("\n")[0]
    elif (end := block_end(line_prefix + text)) is not None:
        text = text[: max(0, end - len(line_prefix))]
    text = without_what_follows(text.partition("\ufffd")[0], after, kind)
    if kind.whole_lines:
        text = text.rstrip() + "\n" if text.strip() else ""
    return CausalDraft(text, tuple(scores), written)


def _text(family: Family, prompt: CausalPrompt, tokens: Sequence[int]) -> str:
    return family.tokens.decode(tokens).removeprefix(prompt.typed)


def block_end(text: str) -> int | None:
    """Where the block ends that begins with the first line of code in `text`: before the first line indented less, or
    before the second of two empty lines; None while it may go on."""
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


def without_what_follows(text: str, after: str, kind: HoleKind) -> str:
    """The text less its end where that says what stands after the hole: the rest of the line, or the next lines."""
    if kind.whole_lines:
        following = next((line for line in after.split("\n") if line.strip()), "")
        at = _line_position(text, following) if not kind.one_line else None
        return text if at is None else text[:at]
    rest = after.partition("\n")[0].rstrip()
    if rest.strip() and text.rstrip().endswith(rest.strip()):
        return text.rstrip()[: -len(rest.strip())] if rest == rest.lstrip() else text.rstrip()[: -len(rest)]
    return text


def _line_position(text: str, line: str) -> int | None:
    """Where `line` begins in `text` as a whole line that says something, or None."""
    if not re.search(r"\w", line):
        return None
    match = re.search(rf"^{re.escape(line.rstrip())}[ \t]*$", text, re.M)
    return match.start() if match else None

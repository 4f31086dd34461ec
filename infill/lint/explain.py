"""Explains findings in one sentence each, with a model that follows instructions.

The prompt shows the lines around the finding and the change; the answer is cut to its first sentence. Must not know how
findings are made, nor how the sentence is shown.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import torch

from engine.canvas import Canvas, Slots
from engine.decoding import Limits, decode
from engine.denoiser import DenoiseRequest
from engine.errors import InputError, Stop, leave_if
from engine.token_tree import TokenTree
from infill.complete.causal_completion import CausalCompleter
from infill.complete.completion import Completer
from infill.complete.pipeline import AnyCompleter
from infill.findings import Finding, LintRequest
from infill.instructions import cannot_explain
from infill.lint.kinds import ALL_KINDS
from infill.model_store import POCKET
from infill.prompts.chatml import ChatMlPrompt

GUESS = "Perhaps"  # begins the sentence of a code model
SLOTS = 96  # tokens of an answer
MAX_SENTENCE = 240  # characters
CONTEXT_LINES = 12  # above and below the finding
MAX_LINE = 300  # characters
DEADLINE_S = 20.0  # per answer; the draft at that time is used
_END = re.compile(r"(?<=[.!?])(?=\s|$)(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)")
_LEAD = re.compile(r"^(?:[-*>#]+\s+|\d+[.)]\s+|sentence\s*:\s*|answer\s*:\s*)+", re.IGNORECASE)
_FENCE = re.compile(r"^\s*```\w*\s*$")


class Explainer:
    """Queries one model. Raises InputError if it does not follow instructions."""

    def __init__(self, completer: AnyCompleter | None) -> None:
        if completer is None or not can_explain(completer):
            raise InputError(cannot_explain(completer.model.name if completer is not None else POCKET))
        self.completer = completer

    def explain_all(self, request: LintRequest, found: Sequence[Finding], stop: Stop | None = None) -> list[Finding]:
        """The findings with an explanation each, or None if the model gave none. stop: polled before every step; once
        it returns True, Cancelled is raised."""
        return [replace(one, explanation=self.explain(request, one, stop)) for one in found]

    def explain(self, request: LintRequest, finding: Finding, stop: Stop | None = None) -> str | None:
        """One sentence of at most MAX_SENTENCE characters on one line; None if the model gave none."""
        leave_if(stop)
        question = _question(request, finding)
        if isinstance(self.completer, CausalCompleter):
            return one_sentence(_decoded(self.completer, question, stop))
        return one_sentence(_denoised(self.completer, question, stop))


def can_explain(completer: AnyCompleter) -> bool:
    """Whether the model follows instructions."""
    if isinstance(completer, CausalCompleter):
        return completer.model.has_chat
    return completer.family.instruction_prompt("") is not None


def _decoded(completer: CausalCompleter, question: str, stop: Stop | None) -> str:
    model, deadline = completer.model, time.monotonic() + DEADLINE_S
    tokens, ends = model.family.tokens, model.family.ends
    prompt = ChatMlPrompt(tokens).question(question, GUESS)
    limits = Limits(
        tokens=SLOTS,
        allowed=lambda _: None,
        done=lambda written: written[-1] in ends or "\n" in tokens.decode(written[-1:]),
        banned=torch.tensor(model.family.banned, dtype=torch.long),
        stop=lambda: time.monotonic() >= deadline,
    )
    with (
        model.decoder.cache.encoded(prompt[:-1], stop) as lease,
        TokenTree(model.decoder.model, lease.kv, prompt[-1:], stop) as tree,
    ):
        (answer,) = decode(tree, limits)
    text = GUESS + tokens.decode([token for token in answer.tokens if token not in ends])
    return text if answer.done or _END.search(text) else ""  # half a sentence explains nothing


def _denoised(completer: Completer, question: str, stop: Stop | None) -> str:
    family, sampling = completer.family, completer.model.sampling
    prompt = family.instruction_prompt(question)
    assert prompt is not None
    denoise_request = DenoiseRequest(
        prompt.tokens,
        Canvas.of(Slots(SLOTS)),
        sampling.with_steps(completer.settings.steps),
        completer.settings.seed,
        banned=torch.tensor(prompt.banned),
        deadline=time.monotonic() + DEADLINE_S,
        stop=stop,
    )
    tokens = completer.denoiser.run([denoise_request])[0].tokens.tolist()
    answer = takewhile(lambda token: token not in prompt.ends, tokens)
    return family.tokens.decode(list(answer))


def one_sentence(answer: str) -> str | None:
    """The first sentence of an answer, on one line, without Markdown, at most MAX_SENTENCE characters."""
    lines = [line for line in answer.replace("\ufffd", "").split("\n") if line.strip() and not _FENCE.match(line)]
    words = " ".join(
        "".join(character if character.isprintable() else " " for character in line) for line in lines[:3]
    ).split()
    text = _LEAD.sub("", " ".join(words).replace("**", "")).strip('" ')
    first = next((part.strip() for part in _END.split(text) if re.search(r"\w", part)), None)
    if first is None:
        return None
    if len(first) > MAX_SENTENCE:
        first = first[: MAX_SENTENCE - 1].rsplit(" ", 1)[0] + "…"
    return first if first[-1] in ".!?…" else f"{first}."


def _question(request: LintRequest, finding: Finding) -> str:
    text = request.text
    start, end = finding.start, finding.end
    first, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    last = len(text) if last < 0 else last
    above = text[:first].split("\n")[-CONTEXT_LINES - 1 : -1]
    below = text[last + 1 :].split("\n")[:CONTEXT_LINES]
    code = "\n".join(line[:MAX_LINE].rstrip("\r") for line in [*above, *text[first:last].split("\n"), *below])
    line = " ".join(text[first:last].split())[:MAX_LINE]
    changed = " ".join((text[first:start] + finding.replacement + text[end:last]).split())[:MAX_LINE]
    name = f" of {request.path}" if request.path else ""
    title = ALL_KINDS[finding.code].title if finding.code in ALL_KINDS else finding.code
    return (
        f"A review of this code{name} found that a line may be wrong: {title}.\n"
        f"```{request.language or ''}\n{code}\n```\n"
        f"The line `{line}` would become `{changed}`.\n"
        "Say in one short sentence to its author why this change may be right. You may be wrong, so begin with "
        f"`{GUESS}`. Write that sentence only, no code."
    )

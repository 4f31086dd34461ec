"""Why a finding may be right, in one sentence, by a model that follows instructions.

The model is shown the lines around the finding and the change, answers on a canvas of its own, and what it says is cut
to one plain sentence. Must not know how findings come about, nor who reads the sentence.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import torch

from engine.canvas import Canvas, Hole
from engine.denoiser import DenoiseRequest
from engine.errors import InputError, Stop, leave_if
from infill.complete.completion import Completer
from infill.findings import Finding, LintRequest
from infill.instructions import cannot_explain
from infill.lint.kinds import ALL_KINDS

SLOTS = 96  # tokens that an answer may have
LONGEST = 240  # characters of a sentence
LINES = 12  # shown above and below
LONGEST_LINE = 300  # characters
DEADLINE_S = 20.0  # for one answer; what stands there then is taken
_END = re.compile(r"(?<=[.!?])(?=\s|$)(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)")
_LEAD = re.compile(r"^(?:[-*>#]+\s+|\d+[.)]\s+|sentence\s*:\s*|answer\s*:\s*)+", re.IGNORECASE)
_FENCE = re.compile(r"^\s*```\w*\s*$")


class Explainer:
    """Asks one model. InputError where it follows no instructions."""

    def __init__(self, completer: Completer) -> None:
        self.completer = completer
        if completer.family.question("") is None:
            raise InputError(cannot_explain(completer.model.name))

    def explained(self, request: LintRequest, found: Sequence[Finding], stop: Stop | None = None) -> list[Finding]:
        """The findings, each with a sentence where the model had one. stop: asked before every step; Cancelled is
        raised where it answers True."""
        return [replace(one, explanation=self.explain(request, one, stop)) for one in found]

    def explain(self, request: LintRequest, finding: Finding, stop: Stop | None = None) -> str | None:
        """One sentence of at most LONGEST characters on one line; None where the model said nothing."""
        leave_if(stop)
        family, sampling = self.completer.family, self.completer.model.sampling
        question = family.question(_question(request, finding))
        assert question is not None
        asked = DenoiseRequest(
            question.prompt,
            Canvas.of(Hole(SLOTS)),
            sampling.with_steps(self.completer.settings.steps),
            self.completer.settings.seed,
            banned=torch.tensor(question.banned),
            deadline=time.monotonic() + DEADLINE_S,
            stop=stop,
        )
        tokens = self.completer.denoiser.run([asked])[0].tokens.tolist()
        said = takewhile(lambda token: token not in question.ends, tokens)
        return one_sentence(family.tokens.decode(list(said)))


def one_sentence(said: str) -> str | None:
    """The first sentence of what a model said: on one line, without marks of Markdown, at most LONGEST characters."""
    lines = [line for line in said.replace("\ufffd", "").split("\n") if line.strip() and not _FENCE.match(line)]
    words = " ".join("".join(sign if sign.isprintable() else " " for sign in line) for line in lines[:3]).split()
    text = _LEAD.sub("", " ".join(words).replace("**", "")).strip('" ')
    first = next((part.strip() for part in _END.split(text) if re.search(r"\w", part)), None)
    if first is None:
        return None
    if len(first) > LONGEST:
        first = first[: LONGEST - 1].rsplit(" ", 1)[0] + "…"
    return first if first[-1] in ".!?…" else f"{first}."


def _question(request: LintRequest, finding: Finding) -> str:
    text = request.text
    start, end = finding.start, finding.end
    first, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    last = len(text) if last < 0 else last
    above = text[:first].split("\n")[-LINES - 1 : -1]
    below = text[last + 1 :].split("\n")[:LINES]
    code = "\n".join(line[:LONGEST_LINE].rstrip("\r") for line in [*above, *text[first:last].split("\n"), *below])
    line = " ".join(text[first:last].split())[:LONGEST_LINE]
    changed = " ".join((text[first:start] + finding.replacement + text[end:last]).split())[:LONGEST_LINE]
    name = f" of {request.path}" if request.path else ""
    what = ALL_KINDS[finding.code].title if finding.code in ALL_KINDS else finding.code
    return (
        f"A review of this code{name} found that a line may be wrong: {what}.\n"
        f"```{request.language or ''}\n{code}\n```\n"
        f"The line `{line}` would become `{changed}`.\n"
        "Say in one short sentence to its author why this change is probably right. Write that sentence only, no code."
    )

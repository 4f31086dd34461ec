"""An autoregressive server with OpenAI's `/v1/completions`: the hole in `suffix`, or in a fill-in-the-middle prompt.

Its text is cut to a line or a block and checked like the service's own. Must not know other kinds of servers.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace
from typing import Annotated, Any

from engine.errors import InputError
from infill.backends.backend import BackendRefused
from infill.backends.checking import Generated, LogProbability, RunStats, checked_result
from infill.backends.remote import Remote
from infill.code.context import ContextBudget
from infill.complete.causal_draft import block_end
from infill.complete.prepared import PreparedRequest, one_hole_requests, prepare
from infill.connection import CancellableConnection
from infill.findings import Finding, LintRequest
from infill.request import HoleCompletion, InfillRequest, InfillResult
from infill.validation import Limits, structure

BUDGET = ContextBudget(prefix=8_000, suffix=3_000, header=0)  # characters; some 3,000 tokens
LINE_TOKENS, BLOCK_TOKENS = 48, 256
MAX_CHARS = 20_000  # of a text, for servers that ignore the token limit
SAMPLED_TEMPERATURE = 0.6  # of further candidates


@dataclass(frozen=True)
class CompletionOptions:
    """How to request completions. model: its name at the server. prompt: a template with {prefix} and {suffix}; None
    sends the suffix in a field of its own. log_probabilities: whether the server can return them."""

    model: str
    prompt: str | None = None
    log_probabilities: bool = True


@dataclass(frozen=True)
class _LogProbabilities:
    """Of a choice; null for a token without one."""

    token_logprobs: tuple[LogProbability | None, ...] = ()


@dataclass(frozen=True)
class _TextChoice:
    text: str
    logprobs: _LogProbabilities = _LogProbabilities()


@dataclass(frozen=True)
class _Usage:
    prompt_tokens: Annotated[int, Limits(0)] = 0


@dataclass(frozen=True)
class _TextResponse:
    """What is read of a response to `/completions`."""

    choices: Annotated[tuple[_TextChoice, ...], Limits(1)]
    usage: _Usage = _Usage()


class AutoregressiveBackend:
    def __init__(self, name: str, remote: Remote, options: CompletionOptions) -> None:
        self.name, self.remote, self.options = name, remote, options

    def complete(
        self, request: InfillRequest, priority: str, timeout_s: float, connection: CancellableConnection
    ) -> InfillResult:
        """Fills several holes from the top down, with a request for each."""
        until = time.monotonic() + timeout_s
        work = prepare(request, BUDGET)
        if len(work.holes) == 1:
            return self._one(work, until, connection)
        parts: list[InfillResult] = []
        completions: list[HoleCompletion] = []
        for single, original in one_hole_requests(work):
            parts.append(self._one(prepare(single, BUDGET), until, connection))
            (completion,) = parts[-1].completions
            work.fillings.append(completion.text if completion.shown else "")
            text = completion.text.replace("\n", work.line_end)
            completions.append(replace(completion, hole=original, text=text))
        return replace(parts[-1], completions=tuple(completions))

    def lint(
        self, request: LintRequest, priority: str, timeout_s: float, connection: CancellableConnection
    ) -> tuple[Finding, ...]:
        raise BackendRefused(f"The backend {self.name} cannot lint; change the route of lint.")

    def _one(self, work: PreparedRequest, until: float, connection: CancellableConnection) -> InfillResult:
        started = time.perf_counter()
        generated: list[Generated] = []
        tokens = 0
        for variant in range(max(1, work.request.candidates)):
            value = self.remote.post("/completions", self._body(work, variant), until - time.monotonic(), connection)
            try:
                response: _TextResponse = structure(_TextResponse, value, "response")
            except InputError as wrong:
                raise BackendRefused(
                    f"The backend {self.name} does not return OpenAI's completions; check its url and kind."
                ) from wrong
            generated.append(self._generated(work, response.choices[0]))
            tokens = response.usage.prompt_tokens
        return checked_result(work, generated, RunStats(self.options.model, started, prompt_tokens=tokens))

    def _body(self, work: PreparedRequest, variant: int) -> dict[str, Any]:
        prefix, suffix, one_line = work.shown.prefix, work.shown.suffix, work.kinds[0].one_line
        template = self.options.prompt
        body: dict[str, Any] = {
            "model": self.options.model,
            "prompt": prefix if template is None else _fill_in(template, prefix, suffix),
            "max_tokens": LINE_TOKENS if one_line else BLOCK_TOKENS,
            "temperature": SAMPLED_TEMPERATURE if variant else 0.0,
            "seed": work.request.seed + variant,
        }
        if template is None:
            body["suffix"] = suffix
        if one_line:
            body["stop"] = ["\n"]
        if self.options.log_probabilities:
            body["logprobs"] = 1
        return body

    def _generated(self, work: PreparedRequest, choice: _TextChoice) -> Generated:
        """Cuts the text at the end of the line or block. Some servers append the suffix."""
        kind, before = work.kinds[0], work.before(0)
        text = choice.text[:MAX_CHARS].replace("\r\n", "\n").removesuffix(work.shown.suffix)
        if kind.one_line:
            text = text.partition("\n")[0]
        else:
            opened = before[before.rfind("\n") + 1 :]
            end = block_end(opened + text)
            text = text if end is None else text[: max(0, end - len(opened))]
        text = text.partition("\ufffd")[0]
        if kind.whole_lines:
            text = text.rstrip() + "\n" if text.strip() else ""
        scores = [one for one in choice.logprobs.token_logprobs if one is not None]
        confidence = math.exp(sum(scores) / len(scores)) if scores else 1.0
        return Generated(text, len(scores), min(1.0, confidence))


def _fill_in(template: str, prefix: str, suffix: str) -> str:
    """Not `str.format`, since code contains braces."""
    parts = {"{prefix}": prefix, "{suffix}": suffix}
    return "".join(parts.get(part, part) for part in re.split(r"(\{prefix\}|\{suffix\})", template))

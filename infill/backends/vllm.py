"""vLLM with DiffusionGemma: canvases with pinned tokens in `vllm_xargs`, laid out as for the service's own model.

The shape of the request and its limits are those of vLLM 0.33: `vllm/utils/diffusion.py`, `vllm/sampling_params.py` (no
seed, no banned tokens, temperature 1) and `vllm/model_executor/models/diffusion_gemma.py` (pins hold on the input only;
a read-only canvas reports log-probabilities at temperature 1 and does not stop at a turn's end). Must not know other
kinds of servers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated

import torch

from engine.config import SamplingConfig
from engine.denoiser import DenoiseRequest, DenoiseResult, StepCallback
from engine.errors import InputError
from infill.backends.backend import BackendRefused
from infill.backends.checking import Generated, LogProbability, RunStats, checked_result
from infill.backends.remote import Remote
from infill.complete.canvas_text import hole_text
from infill.complete.hole_length import Choose, FilledCanvas, FillTask, Probing
from infill.complete.prepared import PreparedRequest, prepare
from infill.connection import CancellableConnection
from infill.findings import Finding, LintRequest
from infill.prompts.prompt import Family, Layout, LayoutPlan
from infill.request import InfillRequest, InfillResult
from infill.validation import Limits, structure

LONGEST = {
    True: 128,
    False: 160,
}  # slots, for a line and for a block; one canvas must also hold the code around them
PROBE_LENGTHS = (4, 8, 16, 32, 64)
AT_ONCE = 8  # canvases of one request that are sent at once; vLLM batches them


@dataclass(frozen=True)
class ServedModel:
    """The model at the server. width: of the canvas, at most; steps: at most."""

    model: str
    width: int = 256
    steps: int = 48


@dataclass(frozen=True)
class _CanvasLogProbabilities:
    token_logprobs: tuple[LogProbability, ...]


@dataclass(frozen=True)
class _CanvasChoice:
    token_ids: tuple[Annotated[int, Limits(0)], ...]
    logprobs: _CanvasLogProbabilities


@dataclass(frozen=True)
class _CanvasResponse:
    """What is read of a response to `/completions`."""

    choices: Annotated[tuple[_CanvasChoice, ...], Limits(1)]


class VllmBackend:
    """load_family: the prompts of the served model, with its tokenizer; called once, by the first request."""

    def __init__(self, name: str, remote: Remote, load_family: Callable[[], Family], served: ServedModel) -> None:
        self.name, self.remote, self.served = name, remote, served
        self._load_family = load_family

    @cached_property
    def family(self) -> Family:
        return self._load_family()

    def complete(
        self, request: InfillRequest, priority: str, timeout_s: float, connection: CancellableConnection
    ) -> InfillResult:
        """Raises BackendRefused for several holes."""
        started, until = time.perf_counter(), time.monotonic() + timeout_s
        work = prepare(request, self.family.budget)
        if len(work.holes) > 1:
            raise BackendRefused(f"The backend {self.name} fills one hole at a time; change the route.")
        vocabulary = self.family.tokens.tokenizer.get_vocab_size()
        lengths = Probing(RemoteRunner(self.remote, self.served, vocabulary, until, connection), PROBE_LENGTHS)
        plan = self.family.plan(work.shown, work.kinds, work.between)
        tasks = [self._task(work, plan, variant) for variant in range(max(1, request.candidates))]
        filled = lengths.fill(tasks)
        generated = [self._generated(work, one) for one in filled]
        prompt, canvas = filled[0].result.prompt_tokens, filled[0].layout.canvas.width
        steps = sum(one.steps for one in filled)
        return checked_result(work, generated, RunStats(self.served.model, started, steps, prompt, canvas))

    def lint(
        self, request: LintRequest, priority: str, timeout_s: float, connection: CancellableConnection
    ) -> tuple[Finding, ...]:
        raise BackendRefused(f"The backend {self.name} cannot lint; change the route of lint.")

    def _task(self, work: PreparedRequest, plan: LayoutPlan, variant: int) -> FillTask:
        def request(layout: Layout) -> DenoiseRequest:
            sampling = SamplingConfig(max_steps=min(self.served.steps, work.request.steps or self.served.steps))
            return DenoiseRequest(layout.prompt, layout.canvas, sampling, work.request.seed + variant, layout.banned)

        kind = work.kinds[0]
        return FillTask(
            lay_out=plan.lay_out,
            request=request,
            slots=(self.family.slots[0 if kind.one_line else 1],),
            most=(LONGEST[kind.one_line],),
        )

    def _generated(self, work: PreparedRequest, filled: FilledCanvas) -> Generated:
        hole = hole_text(self.family, filled.layout, filled.result, 0, work.kinds[0])
        return Generated(hole.text, hole.tokens, hole.confidence)


class RemoteRunner:
    """A `Runner` of whole canvases: the server does not report single steps.

    vocabulary: number of tokens that noise is drawn from. until: time.monotonic() of the deadline.
    """

    def __init__(
        self, remote: Remote, served: ServedModel, vocabulary: int, until: float, connection: CancellableConnection
    ) -> None:
        self.remote, self.served, self.vocabulary = remote, served, vocabulary
        self.until, self.connection = until, connection
        self.max_canvas = served.width

    def run(self, requests: Sequence[DenoiseRequest], on_step: StepCallback | None = None) -> list[DenoiseResult]:
        """Instead of the entropies, results have the negative log-probabilities of their tokens."""
        with ThreadPoolExecutor(min(AT_ONCE, max(1, len(requests)))) as threads:
            return list(threads.map(self._denoise, requests))

    def probe(
        self, requests: Sequence[DenoiseRequest], steps: int, choose: Choose, on_step: StepCallback | None = None
    ) -> list[DenoiseResult]:
        """The chosen ones begin again, since the server keeps no canvas."""
        sampling = [one.sampling.with_steps(min(steps, one.sampling.max_steps)) for one in requests]
        results = self.run([replace(one, sampling=few) for one, few in zip(requests, sampling, strict=True)])
        chosen = choose([float(result.entropy.mean()) for result in results])
        for index, result in zip(chosen, self.run([requests[index] for index in chosen]), strict=True):
            results[index] = replace(result, steps=results[index].steps + result.steps)
        return results

    def likelihoods(self, requests: Sequence[DenoiseRequest], results: Sequence[DenoiseResult]) -> list[float]:
        """Of the canvases themselves, since the server offers no causal pass."""
        return [float(result.log_probabilities.mean()) for result in results]

    def _denoise(self, request: DenoiseRequest) -> DenoiseResult:
        if request.canvas.width > self.max_canvas:
            raise InputError("The hole is too long for the server's canvas; request fewer lines.")
        canvas = _SeededCanvas.of(request, self.vocabulary)
        body = {
            "model": self.served.model,
            "prompt": list(request.prompt),
            "max_tokens": len(canvas.tokens),
            "temperature": 1.0,
            "logprobs": 1,
            "return_token_ids": True,
            "skip_special_tokens": False,
            "vllm_xargs": {
                "diffusion_canvas_length": len(canvas.tokens),
                "diffusion_seed_canvas": canvas.tokens,
                "diffusion_pinned": canvas.pinned,
                "diffusion_max_steps": request.sampling.max_steps,
                "diffusion_read_only": 1,
            },
        }
        value = self.remote.post("/completions", body, self.until - time.monotonic(), self.connection)
        try:
            response: _CanvasResponse = structure(_CanvasResponse, value, "response")
        except InputError as wrong:
            raise self._invalid("returned no tokens") from wrong
        tokens = response.choices[0].token_ids
        scores = response.choices[0].logprobs.token_logprobs
        if max(tokens, default=0) >= self.vocabulary:
            raise self._invalid("returned a token that its tokenizer does not have")
        if len(tokens) != len(canvas.tokens) or len(scores) != len(tokens):
            raise self._invalid(f"returned {len(tokens)} of {len(canvas.tokens)} tokens")
        return canvas.result(request, tokens, scores)

    def _invalid(self, what: str) -> BackendRefused:
        return BackendRefused(
            f"The backend {self.remote.name} {what}, so it is not vLLM with DiffusionGemma; see docs/service.md."
        )


@dataclass(frozen=True)
class _SeededCanvas:
    """A canvas in vLLM's form: tokens, with noise in the holes, and the pinned columns."""

    tokens: list[int]
    pinned: list[int]

    @staticmethod
    def of(request: DenoiseRequest, vocabulary: int) -> _SeededCanvas:
        """A first column of a hole that must repeat typed characters is pinned to the shortest token that does."""
        draws = random.Random(request.seed)
        known = request.canvas.tokens.tolist()
        pins = set(request.canvas.pinned.nonzero().flatten().tolist())
        for column, choices in request.canvas.allowed.items():
            known[column] = int(choices[0])
            pins.add(column)
        tokens = [token if token >= 0 else draws.randrange(vocabulary) for token in known]
        return _SeededCanvas(tokens, sorted(pins))

    def result(self, request: DenoiseRequest, tokens: Sequence[int], scores: Sequence[float]) -> DenoiseResult:
        """Restores the known tokens, and empties each hole from its first banned token on, such as a turn's end."""
        filled, pins = list(tokens), set(self.pinned)
        banned = set() if request.banned is None else set(request.banned.tolist())
        columns = request.canvas.hole_columns.tolist()
        next_empty = -1  # the column after the last one that was emptied
        for column in range(len(filled)):
            if column in pins:
                filled[column] = self.tokens[column]
            elif filled[column] in banned or next_empty == column:
                filled[column], next_empty = -1, column + 1
        log_probabilities = torch.tensor([0.0 if column in pins else scores[column] for column in columns])
        return DenoiseResult(
            tokens=torch.tensor(filled),
            columns=torch.tensor(columns),
            log_probabilities=log_probabilities,
            entropy=-log_probabilities,
            steps=request.sampling.max_steps,
            finish="stable",
            prompt_tokens=len(request.prompt),
            encoded_tokens=len(request.prompt),
        )

"""vLLM with DiffusionGemma: canvases with pinned tokens by `vllm_xargs`, laid out and measured as for a model here.

Shape of the request and its limits: vLLM 0.33, `vllm/utils/diffusion.py`, `vllm/sampling_params.py` (no seed, no banned
tokens, temperature 1) and `vllm/model_executor/models/diffusion_gemma.py` (pins hold on the input only; a canvas that
is only read reports log-probabilities at temperature 1, and does not end where the answer does). Must not know other
kinds of servers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import torch

from engine.config import SamplingConfig
from engine.denoiser import Denoiser, DenoiseRequest, DenoiseResult, StepCallback, Timings
from engine.errors import InputError
from infill.backends.backend import BackendRefused
from infill.backends.judged import Spent, Written, judged
from infill.backends.remote import Remote
from infill.complete.canvas_text import filled_text
from infill.complete.hole_length import CanvasRunner, Filled, FillTask, Probing
from infill.complete.work import Work, make_ready
from infill.findings import Finding, LintRequest
from infill.prompts.prompt import Family, Layout
from infill.request import InfillRequest, InfillResult
from infill.service.client import Line

LONGEST = {True: 128, False: 160}  # slots, for a line and for a block; one canvas must hold them with the code around
PROBE_LENGTHS = (4, 8, 16, 32, 64)
AT_ONCE = 8  # canvases of one request that are asked about together; vLLM makes a batch of them


@dataclass(frozen=True)
class Served:
    """The model as it is served. width: of the served canvas, which is the widest there; steps: at most."""

    model: str
    width: int = 256
    steps: int = 48


class VllmBackend:
    """load_family: called once, when it is needed first: the prompts of the served model, with its tokenizer."""

    def __init__(self, name: str, remote: Remote, load_family: Callable[[], Family], served: Served) -> None:
        self.name, self.remote, self.served = name, remote, served
        self._load_family = load_family

    @cached_property
    def family(self) -> Family:
        return self._load_family()

    def complete(self, request: InfillRequest, priority: str, timeout_s: float, line: Line) -> InfillResult:
        """One hole; raises BackendRefused where there are several."""
        started, until = time.perf_counter(), time.monotonic() + timeout_s
        work = make_ready(request, self.family.budget)
        if len(work.holes) > 1:
            raise BackendRefused(f"The backend {self.name} fills one hole at a time; give them another route.")
        vocabulary = self.family.tokens.tokenizer.get_vocab_size()
        canvases = RemoteCanvases(self.remote, self.served, vocabulary, until, line)
        lengths = _Likeliest(CanvasRunner(canvases, self.served.width), PROBE_LENGTHS)
        tasks = [self._task(work, variant) for variant in range(max(1, request.candidates))]
        filled = lengths.fill(tasks)
        written = [self._written(work, one) for one in filled]
        prompt, canvas = filled[0].result.prompt_tokens, filled[0].layout.canvas.width
        steps = sum(one.steps for one in filled)
        return judged(work, written, Spent(self.served.model, started, steps, prompt, canvas))

    def lint(self, request: LintRequest, priority: str, timeout_s: float, line: Line) -> tuple[Finding, ...]:
        raise BackendRefused(f"The backend {self.name} completes only; change the route of lint.")

    def _task(self, work: Work, variant: int) -> FillTask:
        def request(layout: Layout) -> DenoiseRequest:
            sampling = SamplingConfig(max_steps=min(self.served.steps, work.request.steps or self.served.steps))
            banned = torch.tensor(layout.banned, dtype=torch.long)
            return DenoiseRequest(layout.prompt, layout.canvas, sampling, work.request.seed + variant, banned)

        kind = work.kinds[0]
        return FillTask(
            lay_out=lambda slots: self.family.lay_out(work.shown, work.kinds, work.between, slots),
            request=request,
            slots=(self.family.slots[0 if kind.one_line else 1],),
            most=(LONGEST[kind.one_line],),
        )

    def _written(self, work: Work, filled: Filled) -> Written:
        hole = filled_text(self.family, filled.layout, filled.result, 0, work.kinds[0])
        return Written(hole.text, hole.tokens, hole.confidence)


class _Likeliest(Probing):
    """Lengths by probing; of the last ones the canvas decides that the model is surest of, as there is no causal pass
    to be asked."""

    def _likelihood(self, request: DenoiseRequest, result: DenoiseResult) -> float:
        return float(result.log_probabilities.mean())


class RemoteCanvases(Denoiser):
    """Stands where a `Denoiser` does, for whole canvases alone: there are no single steps to be seen or joined.

    vocabulary: tokens that noise is drawn from. until: time.monotonic() by which all must be answered.
    """

    def __init__(self, remote: Remote, served: Served, vocabulary: int, until: float, line: Line) -> None:
        self.remote, self.served, self.vocabulary, self.until, self.line = remote, served, vocabulary, until, line
        self.timings = Timings()

    def run(self, requests: Sequence[DenoiseRequest], on_step: StepCallback | None = None) -> list[DenoiseResult]:
        """In place of a canvas's entropies the surprise of what stands there, which is never larger."""
        started = time.perf_counter()
        with ThreadPoolExecutor(min(AT_ONCE, max(1, len(requests)))) as threads:
            results = list(threads.map(self._denoised, requests))
        self.timings = Timings(denoise=1000 * (time.perf_counter() - started))
        return results

    def _denoised(self, request: DenoiseRequest) -> DenoiseResult:
        if request.canvas.width > self.served.width:
            raise InputError("The hole is too long for the canvas of the server; ask for fewer lines.")
        canvas = _Canvas.of(request, self.vocabulary)
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
        answer = self.remote.post("/completions", body, self.until - time.monotonic(), self.line)
        try:
            choice = answer["choices"][0]
            tokens = [int(token) for token in choice["token_ids"]]
            scores = [float(score) for score in choice["logprobs"]["token_logprobs"]]
        except (KeyError, IndexError, TypeError, ValueError) as wrong:
            raise self._no_canvas("tells no tokens") from wrong
        if len(tokens) != len(canvas.tokens) or len(scores) != len(tokens):
            raise self._no_canvas(f"sent {len(tokens)} of {len(canvas.tokens)} tokens")
        return canvas.result(request, tokens, scores)

    def _no_canvas(self, what: str) -> BackendRefused:
        return BackendRefused(
            f"The backend {self.remote.name} {what}, so it is no vLLM that serves DiffusionGemma; see docs/service.md."
        )


@dataclass(frozen=True)
class _Canvas:
    """A canvas as vLLM takes it: tokens with noise in the holes, and the columns that stay."""

    tokens: list[int]
    pinned: list[int]

    @staticmethod
    def of(request: DenoiseRequest, vocabulary: int) -> _Canvas:
        """A hole's first column that must spell again what was typed is pinned to the shortest token that does."""
        draws = random.Random(request.seed)
        known = request.canvas.tokens.tolist()
        pins = set(request.canvas.pinned.nonzero().flatten().tolist())
        for column, choices in request.canvas.allowed.items():
            known[column] = int(choices[0])
            pins.add(column)
        tokens = [token if token >= 0 else draws.randrange(vocabulary) for token in known]
        return _Canvas(tokens, sorted(pins))

    def result(self, request: DenoiseRequest, answered: Sequence[int], scores: Sequence[float]) -> DenoiseResult:
        """The known tokens put back, and each hole empty from the first token on that may not stand there, as the end
        of an answer may not."""
        tokens, pins = list(answered), set(self.pinned)
        banned = set() if request.banned is None else set(request.banned.tolist())
        columns = request.canvas.hole_columns.tolist()
        over = -1  # the column after the last one that was emptied
        for column in range(len(tokens)):
            if column in pins:
                tokens[column] = self.tokens[column]
            elif tokens[column] in banned or over == column:
                tokens[column], over = -1, column + 1
        own = torch.tensor([0.0 if column in pins else scores[column] for column in columns])
        return DenoiseResult(
            tokens=torch.tensor(tokens),
            columns=torch.tensor(columns),
            log_probabilities=own,
            entropy=-own,
            steps=request.sampling.max_steps,
            finish="stable",
            prompt_tokens=len(request.prompt),
            encoded_tokens=len(request.prompt),
        )

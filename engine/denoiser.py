"""Denoising with self-conditioning, where every position of a hole may change at every step: DiffusionGemma.

Source of the step: transformers, `generation_diffusion_gemma.py`, with pinned tokens added. Must not know text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from engine.canvas_loop import CanvasLoop, UnitOfWork
from engine.canvas_run import BeliefRun, CanvasRun, DenoiseRequest, DenoiseResult, StepCallback, Timings
from engine.config import ModelConfig, SamplingConfig, SelfConditioning
from engine.decoder import CausalDecoder
from engine.device import available_memory
from engine.errors import InputError, NotFiniteError
from engine.graphs.recorded_steps import CudaGraphs, RecordedSteps, bucket_for
from engine.graphs.step_stats import TOP, all_stats, top_stats
from engine.key_values import BatchedCanvasMemory, CanvasMemory
from engine.logit_bias import LogitBias, bias_rows, bias_values
from engine.memory_use import CONTEXT, StepSizes, batch_limit, key_bytes, reserved_bytes, step_bytes
from engine.models.text_model import TextModel
from engine.prefix_cache import Lease, PrefixCache
from engine.sampler import Draws, RowDraws, decide, is_confident
from engine.scorer import HoleScorer, Scorer


class Denoiser(CanvasLoop[BeliefRun]):
    """One model, its prompt cache and its randomness. Not thread-safe: one caller at a time.

    draws: randomness for tests; by default each canvas has a generator of its own. self_conditioning: `all` as in the
    release, or the `likeliest` TOP tokens, which is faster on a GPU.
    """

    def __init__(
        self,
        model: TextModel,
        cache: PrefixCache | None = None,
        draws: Draws | None = None,
        self_conditioning: SelfConditioning = "all",
    ) -> None:
        super().__init__(model, cache)
        self.model: TextModel = model
        self.own_draws = RowDraws(model.config.noise, model.config.vocab_size, self.device)
        self.draws: Draws = draws if draws is not None else self.own_draws
        self.self_conditioning = self_conditioning
        self.recorded: RecordedSteps | None = None
        if model.has_kernels and self.device.type == "cuda" and draws is None:
            stats = all_stats if self_conditioning == "all" else top_stats
            self.recorded = RecordedSteps(model, self.own_draws, CudaGraphs(), stats)
        config, element = model.config, model.embed_tokens.weight.itemsize
        keys = key_bytes(config, min(CONTEXT, config.max_positions), self.cache.dtype.itemsize)
        least = reserved_bytes(config, element, self.cache.dtype.itemsize, self.recorded is not None) - keys
        # bytes that a step of several canvases may take
        self.step_limit = batch_limit(available_memory(self.device), max(keys, self.cache.limit_bytes), least)
        self._bias_values: tuple[tuple[Tensor | None, ...], Tensor] | None = None  # and what it was made of
        self._memory: tuple[tuple[tuple[int, int], ...], CanvasMemory | BatchedCanvasMemory] | None = None

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    def _lay_out(self, request: DenoiseRequest) -> BeliefRun:
        if not isinstance(request.sampling, SamplingConfig):
            raise InputError("These sampling settings are for another kind of model; use those of the loaded one.")
        lease = self.retry_without_cache(lambda: self.cache.acquire(request.prompt, request.stop))
        try:
            return self._noised(request, lease)
        except BaseException:
            lease.release()
            raise

    def _noised(self, request: DenoiseRequest, lease: Lease) -> BeliefRun:
        canvas = request.canvas.tokens.to(self.device)
        pinned = request.canvas.pinned.to(self.device)
        columns = request.canvas.hole_columns.to(self.device)
        drafted = canvas[columns] >= 0
        embedded = self.model.embed(canvas.clamp(min=0))
        bias = self._bias(request)
        row = next(self._rows)
        self.own_draws.seed(row, request.seed)
        noise = self.draws.noise([row], torch.ones(1, len(columns), dtype=torch.bool, device=self.device))[0]
        tokens = torch.where(drafted, canvas[columns], noise)
        return BeliefRun(
            request=request,
            lease=lease,
            row=row,
            columns=columns,
            known_belief=embedded * pinned[:, None],
            believes_pins=self.config.believes_pins_at_once
            or bool((request.canvas.tokens[~request.canvas.pinned] >= 0).any()),
            canvas=canvas,
            tokens=tokens,
            argmax=tokens,
            belief=embedded[columns] * drafted[:, None],
            accepted=drafted,
            entropy=torch.zeros(len(columns), device=self.device),
            bias=bias,
        )

    def _step_for(self, runs: Sequence[BeliefRun]) -> Callable[[Sequence[BeliefRun]], None]:
        return self.recorded.step if self._is_recorded(runs) and self.recorded is not None else self._step

    def _is_recorded(self, runs: Sequence[BeliefRun]) -> bool:
        return self.recorded is not None and self.recorded.takes(runs)

    def _bytes_of(self, runs: Sequence[BeliefRun]) -> int:
        """What a step of these runs takes beside weights and prompts."""
        config, element, kv_element = (
            self.model.config,
            self.model.embed_tokens.weight.itemsize,
            self.cache.dtype.itemsize,
        )
        if self._is_recorded(runs):
            bucket = bucket_for(runs)
            sizes = StepSizes(bucket.batch, bucket.width, bucket.holes, bucket.prompt, bucket.bias)
            return step_bytes(config, sizes, element, kv_element, recorded=self.model.has_kernels)
        width, holes = max(len(run.canvas) for run in runs), max(len(run.columns) for run in runs)
        sizes = StepSizes(len(runs), width, holes, max(run.lease.kv.length for run in runs))
        return step_bytes(config, sizes, element, kv_element, recorded=False)

    def _step(self, runs: Sequence[BeliefRun]) -> None:
        batch = len(runs)
        memory = self._memory_for(runs)
        width, holes = max(len(run.canvas) for run in runs), max(len(run.columns) for run in runs)
        tokens = torch.zeros(batch, width, dtype=torch.long, device=self.device)
        belief = torch.zeros(
            batch, width, self.model.config.hidden_size, device=self.device, dtype=runs[0].belief.dtype
        )
        columns = torch.zeros(batch, holes, dtype=torch.long, device=self.device)
        present = torch.zeros(batch, holes, dtype=torch.bool, device=self.device)
        for index, run in enumerate(runs):
            tokens[index, : len(run.canvas)] = run.canvas.index_copy(0, run.columns, run.tokens)
            known = run.known_belief if run.believes_pins or run.steps else torch.zeros_like(run.known_belief)
            belief[index, : len(run.canvas)] = known.index_copy(0, run.columns, run.belief)
            columns[index, : len(run.columns)] = run.columns
            present[index, : len(run.columns)] = True
        hidden = self.model.denoise(tokens, belief, memory.positions(), memory.masks(), memory)
        logits = self.model.logits(hidden.gather(1, columns[..., None].expand(-1, -1, hidden.shape[-1])))
        for index, run in enumerate(runs):
            if run.bias is not None:
                size = len(run.columns)
                logits[index, :size] = run.bias.added(logits[index, :size])
        configs = [run.sampling for run in runs]
        decision = decide(
            logits, present, [run.row for run in runs], configs, [run.remaining for run in runs], self.draws
        )
        bounds = [run.sampling.confidence_threshold * len(run.canvas) for run in runs]
        is_sure = is_confident(decision.entropy, present, torch.tensor(bounds, device=self.device))
        finite = (decision.entropy.isfinite() | ~present).all(dim=-1)
        confident, finite = torch.stack((is_sure, finite)).tolist()
        if not all(finite):
            raise NotFiniteError
        probabilities = decision.probabilities
        if self.self_conditioning == "likeliest":
            probabilities = _likeliest(probabilities)
        beliefs = self.model.embed_mean(probabilities)
        for index, run in enumerate(runs):
            size = len(run.columns)
            argmax = decision.argmax[index, :size]
            same = run.steps > 0 and torch.equal(argmax, run.argmax)
            run.unchanged = run.unchanged + 1 if same else 0
            run.steps += 1
            run.tokens, run.argmax = decision.tokens[index, :size], argmax
            run.belief, run.accepted = beliefs[index, :size], decision.accepted[index, :size]
            run.entropy, run.read_logits = decision.entropy[index, :size], partial(_identity, logits[index, :size])
            run.log_probability = None
            if confident[index] and run.unchanged >= run.sampling.stability_threshold:
                run.finished = "stable"
            elif run.remaining <= 0:
                run.finished = "steps"

    @torch.inference_mode()
    def result(self, run: BeliefRun) -> DenoiseResult:
        """The argmax canvas in its present state."""
        log_probabilities = run.log_probability
        if log_probabilities is None:
            logits = run.logits
            assert logits is not None, "a result requires at least one step"
            log_probabilities = torch.log_softmax(logits, dim=-1).gather(1, run.argmax[:, None]).squeeze(1)
        return DenoiseResult(
            tokens=run.canvas.index_copy(0, run.columns, run.argmax).cpu(),
            columns=run.columns.cpu(),
            log_probabilities=log_probabilities.float().cpu(),
            entropy=run.entropy.float().cpu(),
            steps=run.steps,
            finish=run.finished or "cancelled",
            prompt_tokens=len(run.request.prompt),
            encoded_tokens=run.lease.encoded,
        )

    def close(self, run: BeliefRun) -> None:
        """Releases the prompt of `run` and forgets its randomness."""
        run.lease.release()
        self.own_draws.forget(run.row)
        if self.recorded is not None:
            self.recorded.leave(run)
        self._memory = None

    def read_ahead(self, request: DenoiseRequest) -> int:
        with self.cache.encoded(request.prompt, request.stop) as lease:
            return lease.encoded

    def scorer_for(self, view: CausalDecoder, call: UnitOfWork) -> HoleScorer:
        return Scorer(view.model, view.cache)

    def release(self) -> None:
        if self.recorded is not None:
            self.recorded.clear()
        super().release()

    def forget(self) -> None:
        self._memory = self._bias_values = None
        super().forget()

    def _memory_for(self, runs: Sequence[BeliefRun]) -> CanvasMemory | BatchedCanvasMemory:
        """Reused from step to step, as long as the runs are the same."""
        key = tuple((run.row, run.lease.kv.length) for run in runs)
        if self._memory is None or self._memory[0] != key:
            rows, widths = [run.lease.kv for run in runs], [len(run.canvas) for run in runs]
            single = len(runs) == 1
            self._memory = key, CanvasMemory(rows[0], widths[0]) if single else BatchedCanvasMemory(rows, widths)
        return self._memory[1]

    def _bias(self, request: DenoiseRequest) -> LogitBias | None:
        """The canvases of one request share the values: they are made of the same tensors."""
        canvas, config = request.canvas, self.model.config
        if request.banned is None and not canvas.allowed:
            return None
        sources = (request.banned, *canvas.allowed.values())
        last = self._bias_values
        if (
            last is None
            or len(last[0]) != len(sources)
            or any(a is not b for a, b in zip(last[0], sources, strict=True))
        ):
            values = bias_values(canvas, request.banned, config.vocab_size, self.device)
            last = self._bias_values = sources, values
        return LogitBias(last[1], bias_rows(canvas).to(self.device))


def _identity(logits: Tensor) -> Tensor:
    return logits


def _likeliest(probabilities: Tensor) -> Tensor:
    """The same [..., vocab] with zeros for all but the TOP likeliest tokens."""
    values, tokens = probabilities.topk(min(TOP, probabilities.shape[-1]), dim=-1)
    return torch.zeros_like(probabilities).scatter(-1, tokens, values)


__all__ = ["CanvasRun", "DenoiseRequest", "DenoiseResult", "Denoiser", "StepCallback", "Timings"]

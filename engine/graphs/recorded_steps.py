"""Steps on a GPU without Python: one `FixedStep` per bucket, recorded as a CUDA graph and replayed from then on.

The first step of a bucket runs unrecorded, which compiles its kernels; then it is recorded. If that fails, the log says
why and steps continue unrecorded. Between two steps the host reads one small tensor, so cancelling and deadlines work
as usual. Must not know what a step computes.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from engine.canvas_run import BeliefRun
from engine.errors import NotFiniteError, describe_error
from engine.graphs.fixed_step import (
    MOST_STEPS,
    NOT_FINITE,
    OUT_OF_STEPS,
    STABLE,
    Bucket,
    CanvasState,
    FixedStep,
    KeyValueBuffers,
)
from engine.graphs.step_stats import ComputeStats, all_stats
from engine.logit_bias import LogitBias
from engine.models.text_model import TextModel
from engine.sampler import RowDraws

MOST_BUCKETS = 16  # the least recently used is dropped first
BATCHES = (1, 2, 3, 4, 5, 6, 8, 12, 16)  # five or six lengths are probed together, without unused rows
WIDTHS = (32, 64, 96, 128, 160, 192, 256)
MIN_HOLES, MIN_PROMPT, PROMPT_STEP = 16, 512, 2048

Record = Callable[[Callable[[], None]], Callable[[], None]]
log = logging.getLogger(__name__)


@dataclass
class _Slot:
    """A bucket's step. runs: the runs in its rows, None for a free row; replay: its recording."""

    step: FixedStep
    runs: list[BeliefRun | None] = field(default_factory=list)
    replay: Callable[[], None] | None = None
    is_warm: bool = False


class RecordedSteps:
    """All buckets of one model. draws: the randomness of the runs. record: makes a recording; None records nothing.

    One bucket at a time holds keys and values; rows stay in it until other canvases are stepped.
    """

    def __init__(
        self, model: TextModel, draws: RowDraws, record: Record | None, compute_stats: ComputeStats = all_stats
    ) -> None:
        self.model, self.draws, self.compute_stats, self._record = model, draws, compute_stats, record
        self._slots: OrderedDict[Bucket, _Slot] = OrderedDict()
        self._loaded: _Slot | None = None
        self._keys: KeyValueBuffers | None = None

    @property
    def are_recorded(self) -> bool:
        """Whether steps are replayed; true from the third step of a bucket on."""
        return any(slot.replay is not None for slot in self._slots.values())

    def takes(self, runs: Sequence[BeliefRun]) -> bool:
        """Whether a bucket can hold these runs."""
        most = max(run.sampling.max_steps for run in runs)
        return len(runs) <= BATCHES[-1] and max(len(run.canvas) for run in runs) <= WIDTHS[-1] and most <= MOST_STEPS

    def step(self, runs: Sequence[BeliefRun]) -> None:
        """One step for every run, which updates the state of the runs. Raises NotFiniteError."""
        slot = self._slot_with(runs)
        step, rows = slot.step, [_row_of(slot, run) for run in runs]
        live = torch.zeros(step.bucket.batch, dtype=torch.bool)
        live[rows] = True
        step.live.copy_(live)
        self._advance(slot)
        status, steps, unchanged = torch.stack((step.status, step.steps, step.unchanged)).tolist()
        if any(status[row] == NOT_FINITE for row in rows):
            self.clear()  # masked positions must not hold NaN
            raise NotFiniteError
        for run, row in zip(runs, rows, strict=True):
            self._show_state(slot, run, row)
            run.steps, run.unchanged = steps[row], unchanged[row]
            if status[row] in (STABLE, OUT_OF_STEPS):
                run.finished = "stable" if status[row] == STABLE else "steps"

    def leave(self, run: BeliefRun) -> None:
        """Copies the state of the run and frees its row."""
        for slot in self._slots.values():
            for row, other in enumerate(slot.runs):
                if other is run:
                    _copy_state(run)
                    slot.runs[row] = None

    def clear(self) -> None:
        """Frees all memory; active runs keep their state."""
        for slot in self._slots.values():
            for run in slot.runs:
                if run is not None:
                    _copy_state(run)
        self._slots.clear()
        self._loaded = self._keys = None

    def _slot_with(self, runs: Sequence[BeliefRun]) -> _Slot:
        """The slot that holds these runs: the current one, if it has them and is not much too large."""
        loaded = self._loaded
        if loaded is not None and all(any(other is run for other in loaded.runs) for run in runs):
            if 2 * len(runs) > loaded.step.bucket.batch:
                return loaded
        if loaded is not None:
            for run in loaded.runs:
                if run is not None:
                    _copy_state(run)
            loaded.runs = []
        slot = self._slot(bucket_for(runs))
        slot.step.load([self._row(run) for run in runs])
        slot.runs = list(runs)
        self._loaded = slot
        return slot

    def _slot(self, bucket: Bucket) -> _Slot:
        weight, config = self.model.embed_tokens.weight, self.model.config
        if self._keys is None or not self._keys.holds(bucket):
            self.clear()
            self._keys = KeyValueBuffers(config, bucket, weight.device, self.model.kv_dtype)
        if bucket not in self._slots:
            self._slots[bucket] = _Slot(FixedStep(self.model, bucket, self._keys, self.compute_stats))
            if len(self._slots) > MOST_BUCKETS:
                self._slots.popitem(last=False)
        self._slots.move_to_end(bucket)
        return self._slots[bucket]

    def _row(self, run: BeliefRun) -> CanvasState:
        sampling = run.sampling
        if run.draws_ahead is None:
            count, device = len(run.columns), run.canvas.device
            uniform, noise = self.draws.ahead(run.row, count, run.remaining, sampling.token_choice == "sample")
            run.draws_ahead = run.steps, uniform.to(device), noise.to(device)
        first, uniform, noise = run.draws_ahead
        return CanvasState(
            kv=run.lease.kv, sampling=sampling, canvas=run.canvas, columns=run.columns, known_belief=run.known_belief,
            believes_pins=run.believes_pins, tokens=run.tokens, argmax=run.argmax, belief=run.belief,
            noise=noise[run.steps - first :], uniform=uniform[run.steps - first :], bias=run.bias, steps=run.steps,
            unchanged=run.unchanged,
        )  # fmt: skip

    def _advance(self, slot: _Slot) -> None:
        if slot.replay is None and slot.is_warm and self._record is not None:
            try:
                slot.replay = self._record(slot.step)
            except torch.OutOfMemoryError:
                raise  # the caller frees memory and tries again
            except Exception as error:  # drivers raise types of their own; the step runs unrecorded in any case
                log.warning("Steps run without CUDA graphs, which cannot be recorded here: %s.", describe_error(error))
                self._record = None
        if slot.replay is not None:
            slot.replay()
        else:
            slot.step()
            slot.is_warm = True

    def _show_state(self, slot: _Slot, run: BeliefRun, row: int) -> None:
        """Makes the run's state views of its row in the slot."""
        step, size = slot.step, len(run.columns)
        run.tokens, run.argmax, run.belief = (x[row, :size] for x in (step.tokens, step.argmax, step.belief))
        run.accepted, run.entropy = step.accepted[row, :size], step.entropy[row, :size]
        run.log_probability = step.log_probability[row, :size]
        run.read_logits = partial(_logits, self.model, step.hidden[row, :size], run.bias)


def bucket_for(runs: Sequence[BeliefRun]) -> Bucket:
    """The smallest bucket that holds these runs."""
    width = max(len(run.canvas) for run in runs)
    holes = max(len(run.columns) for run in runs)
    prompt = max(run.lease.kv.length for run in runs)
    bias = max((len(run.bias.values) for run in runs if run.bias is not None), default=0)
    padded_prompt = MIN_PROMPT if prompt <= MIN_PROMPT else PROMPT_STEP // 2 if prompt <= PROMPT_STEP // 2 else 0
    return Bucket(
        batch=next(one for one in BATCHES if len(runs) <= one),
        width=next(one for one in WIDTHS if width <= one),
        holes=max(MIN_HOLES, 1 << (holes - 1).bit_length()),
        prompt=padded_prompt or -(-prompt // PROMPT_STEP) * PROMPT_STEP,
        bias=1 << (bias - 1).bit_length() if bias else 0,
    )


class CudaGraphs:
    """A `Record`: records work that has run before as a CUDA graph; raises if the driver refuses.

    All graphs share one memory pool, because they never run at the same time and leave nothing in it.
    """

    def __init__(self) -> None:
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
        self._pool: Any = None

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        if not self._graphs:  # PyTorch does not reuse a pool whose graphs are all deleted
            self._pool = torch.cuda.graph_pool_handle()
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                work()
        except Exception as error:
            torch.cuda.set_stream(stream)  # a recording that cannot be ended leaves its own stream current
            if isinstance(error.__context__, torch.OutOfMemoryError):  # the cause of a failure to end the recording
                raise error.__context__ from None
            raise
        self._graphs.add(graph)
        return graph.replay


def _row_of(slot: _Slot, run: BeliefRun) -> int:
    return next(index for index, other in enumerate(slot.runs) if other is run)


def _copy_state(run: BeliefRun) -> None:
    """Copies the state that views a slot, before other runs use the slot."""
    run.tokens, run.argmax, run.belief = run.tokens.clone(), run.argmax.clone(), run.belief.clone()
    run.accepted, run.entropy = run.accepted.clone(), run.entropy.clone()
    if run.log_probability is not None:
        run.log_probability = run.log_probability.clone()
    if isinstance(run.read_logits, partial):
        model, hidden, bias = run.read_logits.args
        run.read_logits = partial(_logits, model, hidden.clone(), bias)


@torch.inference_mode()
def _logits(model: TextModel, hidden: Tensor, bias: LogitBias | None) -> Tensor:
    """[holes, vocab]"""
    logits = model.logits(hidden)
    return logits if bias is None else bias.added(logits)

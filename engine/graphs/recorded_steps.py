"""Steps of a GPU without Python: one `FixedStep` for each bucket, recorded as a CUDA graph and played from then on.

The first step of a bucket runs as it is, which compiles its kernels; then it is recorded. Where that fails, the log
tells why and steps go on unrecorded. Between two steps the host reads one small tensor, so cancelling and deadlines act
there as ever. Must not know what a step computes.
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

from engine.canvas_run import CanvasRun
from engine.errors import NotFiniteError
from engine.graphs.fixed_step import MOST_STEPS, NOT_FINITE, OUT_OF_STEPS, STABLE, Bias, Bucket, FixedStep, KeyRoom, Row
from engine.graphs.step_stats import Read, few
from engine.models.text_model import TextModel
from engine.sampler import RowDraws

MOST_BUCKETS = 16  # kept; the least recently used goes first
MOST_BATCH = 16
WIDTHS = (32, 64, 96, 128, 192, 256)
LEAST_HOLES, LEAST_ROOM, ROOM_STEP = 16, 512, 2048

Record = Callable[[Callable[[], None]], Callable[[], None]]
log = logging.getLogger(__name__)


@dataclass
class _Slot:
    """A bucket's step. runs: who stands in its rows, None where a row is free; replay: its recording."""

    step: FixedStep
    runs: list[CanvasRun | None] = field(default_factory=list)
    replay: Callable[[], None] | None = None
    is_warm: bool = False


class RecordedSteps:
    """All buckets of one model. draws: the randomness of the runs. record: makes a recording; None for none at all.

    One bucket at a time holds keys and values; rows stay in it until other canvases are to be stepped.
    """

    def __init__(self, model: TextModel, draws: RowDraws, record: Record | None, read: Read = few) -> None:
        self.model, self.draws, self.read, self._record = model, draws, read, record
        self._slots: OrderedDict[Bucket, _Slot] = OrderedDict()
        self._loaded: _Slot | None = None
        self._keys: KeyRoom | None = None

    @property
    def are_recorded(self) -> bool:
        """Whether steps are played, not run: known after the second step of a bucket."""
        return any(slot.replay is not None for slot in self._slots.values())

    def takes(self, runs: Sequence[CanvasRun]) -> bool:
        """Whether there can be a bucket for these."""
        most = max(run.request.sampling.max_steps for run in runs)
        return len(runs) <= MOST_BATCH and max(len(run.canvas) for run in runs) <= WIDTHS[-1] and most <= MOST_STEPS

    def step(self, runs: Sequence[CanvasRun]) -> None:
        """One step for every run, whose state stands in them afterwards. Raises NotFiniteError."""
        slot = self._slot_with(runs)
        step, places = slot.step, [_place(slot, run) for run in runs]
        wanted = torch.zeros(step.bucket.batch, dtype=torch.bool)
        wanted[places] = True
        step.live.copy_(wanted)
        self._advance(slot)
        status, steps, unchanged = torch.stack((step.status, step.steps, step.unchanged)).tolist()
        if any(status[place] == NOT_FINITE for place in places):
            self.clear()  # where nobody looks must stand numbers too
            raise NotFiniteError
        for run, place in zip(runs, places, strict=True):
            self._look(slot, run, place)
            run.steps, run.unchanged = steps[place], unchanged[place]
            if status[place] in (STABLE, OUT_OF_STEPS):
                run.finished = "stable" if status[place] == STABLE else "steps"

    def leave(self, run: CanvasRun) -> None:
        """The run keeps its state, and its row is free."""
        for slot in self._slots.values():
            for place, other in enumerate(slot.runs):
                if other is run:
                    _keep(run)
                    slot.runs[place] = None

    def clear(self) -> None:
        """Gives all memory back; runs under way keep their state."""
        for slot in self._slots.values():
            for run in slot.runs:
                if run is not None:
                    _keep(run)
        self._slots.clear()
        self._loaded = self._keys = None

    def _slot_with(self, runs: Sequence[CanvasRun]) -> _Slot:
        """The slot whose rows these runs are: the one in use, if it has them and is not much too large."""
        loaded = self._loaded
        if loaded is not None and all(any(other is run for other in loaded.runs) for run in runs):
            if 2 * len(runs) > loaded.step.bucket.batch:
                return loaded
        if loaded is not None:
            for run in loaded.runs:
                if run is not None:
                    _keep(run)
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
            self._keys = KeyRoom(config, bucket, weight.device, self.model.kv_dtype)
        if bucket not in self._slots:
            self._slots[bucket] = _Slot(FixedStep(self.model, bucket, self._keys, self.read))
            if len(self._slots) > MOST_BUCKETS:
                self._slots.popitem(last=False)
        self._slots.move_to_end(bucket)
        return self._slots[bucket]

    def _row(self, run: CanvasRun) -> Row:
        sampling = run.request.sampling
        if run.draws_ahead is None:
            count, device = len(run.columns), run.canvas.device
            uniform, noise = self.draws.ahead(run.row, count, run.remaining, sampling.token_choice == "sample")
            run.draws_ahead = run.steps, uniform.to(device), noise.to(device)
        first, uniform, noise = run.draws_ahead
        return Row(
            kv=run.lease.kv, sampling=sampling, canvas=run.canvas, columns=run.columns, known_belief=run.known_belief,
            tokens=run.tokens, argmax=run.argmax, belief=run.belief, noise=noise[run.steps - first :],
            uniform=uniform[run.steps - first :], bias=run.bias, steps=run.steps, unchanged=run.unchanged,
        )  # fmt: skip

    def _advance(self, slot: _Slot) -> None:
        if slot.replay is None and slot.is_warm and self._record is not None:
            try:
                slot.replay = self._record(slot.step)
            except torch.OutOfMemoryError:
                raise  # with less kept for later there may be room
            except Exception as trouble:  # a driver's own kind: whatever it is, the step runs without
                reason = str(trouble).strip().partition("\n")[0] or type(trouble).__name__
                log.warning("Steps run without CUDA graphs, which cannot be recorded here: %s.", reason)
                self._record = None
        if slot.replay is not None:
            slot.replay()
        else:
            slot.step()
            slot.is_warm = True

    def _look(self, slot: _Slot, run: CanvasRun, place: int) -> None:
        """The state of the row, as it stands in the slot."""
        step, size = slot.step, len(run.columns)
        run.tokens, run.argmax, run.belief = (x[place, :size] for x in (step.tokens, step.argmax, step.belief))
        run.accepted, run.entropy = step.accepted[place, :size], step.entropy[place, :size]
        run.log_probability = step.log_probability[place, :size]
        run.read_logits = partial(_logits, self.model, step.hidden[place, :size], run.bias)


def bucket_for(runs: Sequence[CanvasRun]) -> Bucket:
    """The smallest that holds these."""
    width = max(len(run.canvas) for run in runs)
    holes = max(len(run.columns) for run in runs)
    prompt = max(run.lease.kv.length for run in runs)
    biases = [run.bias for run in runs if run.bias is not None]
    bias: Bias = "none" if not biases else "row" if all(len(bias) == 1 for bias in biases) else "hole"
    room = LEAST_ROOM if prompt <= LEAST_ROOM else ROOM_STEP // 2 if prompt <= ROOM_STEP // 2 else 0
    return Bucket(
        batch=1 << (len(runs) - 1).bit_length(),
        width=next(one for one in WIDTHS if width <= one),
        holes=max(LEAST_HOLES, 1 << (holes - 1).bit_length()),
        room=room or -(-prompt // ROOM_STEP) * ROOM_STEP,
        bias=bias,
    )


class CudaGraphs:
    """A `Record`: work that has run before becomes a CUDA graph; raises where the driver refuses.

    All graphs share one pool of memory, as they never run at the same time and leave nothing in it.
    """

    def __init__(self) -> None:
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
        self._pool: Any = None

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        if not self._graphs:  # PyTorch takes no pool again whose graphs are all gone
            self._pool = torch.cuda.graph_pool_handle()
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                work()
        except Exception as trouble:
            torch.cuda.set_stream(stream)  # a recording that cannot be ended leaves its own one current
            if isinstance(trouble.__context__, torch.OutOfMemoryError):  # which ending it then failed over
                raise trouble.__context__ from None
            raise
        self._graphs.add(graph)
        return graph.replay


def _place(slot: _Slot, run: CanvasRun) -> int:
    return next(index for index, other in enumerate(slot.runs) if other is run)


def _keep(run: CanvasRun) -> None:
    """Copies what stands in a slot that others will use."""
    run.tokens, run.argmax, run.belief = run.tokens.clone(), run.argmax.clone(), run.belief.clone()
    run.accepted, run.entropy = run.accepted.clone(), run.entropy.clone()
    if run.log_probability is not None:
        run.log_probability = run.log_probability.clone()
    if isinstance(run.read_logits, partial):
        model, hidden, bias = run.read_logits.args
        run.read_logits = partial(_logits, model, hidden.clone(), bias)


@torch.inference_mode()
def _logits(model: TextModel, hidden: Tensor, bias: Tensor | None) -> Tensor:
    """[holes, vocab]"""
    logits = model.logits(hidden)
    return logits if bias is None else logits + bias

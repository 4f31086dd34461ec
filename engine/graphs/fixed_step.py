"""A denoise step over tensors with fixed addresses, which makes all its decisions on the device.

So one recording of it (a CUDA graph) serves all steps of all requests that fit its `Bucket`. It includes pinned tokens,
sampling, acceptance, stopping and the next belief; randomness and temperatures are drawn in advance and stored in
tables by step. Computes what `engine.denoiser.Denoiser.step` computes. Must not know graphs, or who is stepped when.

Shapes: batch, width (canvas columns), holes, hidden, vocab; unused rows, columns and holes are masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import LayerConfig, ModelConfig, SamplingConfig
from engine.graphs.step_stats import ComputeStats
from engine.key_values import KeyValues, put
from engine.logit_bias import LogitBias
from engine.memory import Masks
from engine.models.text_model import TextModel
from engine.sampler import accept, is_confident, temperatures

RUNNING, STABLE, OUT_OF_STEPS, NOT_FINITE = range(4)  # the `status` of a row
MOST_STEPS = 64


@dataclass(frozen=True)
class Bucket:
    """Upper limits: canvases, columns, holes and prompt tokens. bias: rows of values of a canvas, 0 for no bias."""

    batch: int
    width: int
    holes: int
    prompt: int
    bias: int


@dataclass(frozen=True)
class CanvasState:
    """The state of one canvas before a step. columns, tokens, argmax [holes]; canvas [width]; known_belief [width,
    hidden]; belief [holes, hidden]; noise, uniform [steps, holes]: for the steps from `steps` on. believes_pins: see
    `BeliefRun`."""

    kv: KeyValues
    sampling: SamplingConfig
    canvas: Tensor
    columns: Tensor
    known_belief: Tensor
    believes_pins: bool
    tokens: Tensor
    argmax: Tensor
    belief: Tensor
    noise: Tensor
    uniform: Tensor
    bias: LogitBias | None
    steps: int
    unchanged: int


class KeyValueBuffers:
    """Memory for the keys and values of one bucket at a time; `holds` says whether it is large enough for another."""

    def __init__(self, config: ModelConfig, bucket: Bucket, device: torch.device, dtype: torch.dtype) -> None:
        self.config = config
        sizes = (self._elements(layer, bucket) for layer in config.layers)
        # zeros, because masked positions must not hold NaN
        self.storage = [torch.zeros(2, size, device=device, dtype=dtype) for size in sizes]

    def holds(self, bucket: Bucket) -> bool:
        pairs = zip(self.config.layers, self.storage, strict=True)
        return all(self._elements(layer, bucket) <= part.shape[1] for layer, part in pairs)

    def view(self, index: int, bucket: Bucket) -> Tensor:
        """[2, batch, kv_heads, prompt + width, head_dim] of a layer: keys, then values."""
        layer = self.config.layers[index]
        part = self.storage[index][:, : self._elements(layer, bucket)]
        return part.view(2, bucket.batch, layer.num_kv_heads, -1, layer.head_dim)

    def _elements(self, layer: LayerConfig, bucket: Bucket) -> int:
        length = visible_prompt(self.config, layer, bucket.prompt) + bucket.width
        return bucket.batch * layer.num_kv_heads * length * layer.head_dim


def visible_prompt(config: ModelConfig, layer: LayerConfig, prompt: int) -> int:
    """How many prompt tokens a canvas may see in such a layer."""
    return min(prompt, config.sliding_window - 1) if layer.is_sliding else prompt


class FixedMemory:
    """A `Memory` with prompts right-aligned, canvases behind them, and everything else masked."""

    def __init__(self, config: ModelConfig, bucket: Bucket, keys: KeyValueBuffers) -> None:
        self.width = bucket.width
        self.layers = [keys.view(index, bucket) for index in range(len(config.layers))]
        self._slots = [(part[0, :, :, -bucket.width :], part[1, :, :, -bucket.width :]) for part in self.layers]
        device = self.layers[0].device
        self.starts = torch.zeros(bucket.batch, 1, dtype=torch.long, device=device)
        self.columns = torch.arange(bucket.width, device=device)
        self._masks: Masks = {}
        self.lengths = {layer.kind: part.shape[3] for layer, part in zip(config.layers, self.layers, strict=True)}
        for kind, length in self.lengths.items():
            self._masks[kind] = torch.zeros(bucket.batch, 1, 1, length, dtype=torch.bool, device=device)

    def load(self, index: int, kv: KeyValues, width: int) -> None:
        """Copies the prompt of a row, before a canvas of `width` columns."""
        self.starts[index] = kv.length
        for layer, part in enumerate(self.layers):
            stats, end = kv.length - kv.visible_from(layer), part.shape[3] - self.width
            span = slice(kv.length - stats, kv.length)
            part[0, index, :, end - stats : end] = kv.keys[layer][0, :, span]
            part[1, index, :, end - stats : end] = kv.values[layer][0, :, span]
            mask = self._masks[kv.config.layers[layer].kind]
            assert mask is not None
            mask[index] = False
            mask[index, :, :, end - stats : end + width] = True

    def empty(self, index: int) -> None:
        """Lets an unused row see its own columns, so that it does not compute NaN."""
        for mask in self._masks.values():
            assert mask is not None
            mask[index] = False
            mask[index, :, :, -self.width :] = True

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.layers[layer]
        for slot, new in zip(self._slots[layer], (key, value), strict=True):
            if slot is not new:
                put(slot, new)
        return keys, values

    def slots(self, layer: int) -> tuple[Tensor, Tensor]:
        """See `engine.memory.SlottedMemory`."""
        return self._slots[layer]

    def positions(self) -> Tensor:
        """A new tensor each time, because models cache what they compute from it."""
        return self.starts + self.columns

    def masks(self) -> Masks:
        return self._masks


class FixedStep:
    """The tensors of a bucket; `load` fills them with rows, and a call makes one step of all rows that are `live`."""

    def __init__(self, model: TextModel, bucket: Bucket, keys: KeyValueBuffers, compute_stats: ComputeStats) -> None:
        self.model, self.bucket, self.compute_stats, config = model, bucket, compute_stats, model.config
        weight = model.embed_tokens.weight
        batch, width, holes = bucket.batch, bucket.width, bucket.holes

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=weight.device)

        belief_type = model.embed(zeros(1, dtype=torch.long)).dtype
        self.memory = FixedMemory(config, bucket, keys)
        # one extra column, to which unused holes are written
        self.known = zeros(batch, width + 1, dtype=torch.long)
        self.known_belief = zeros(batch, width + 1, config.hidden_size, dtype=belief_type)
        self.believes_pins = zeros(batch, dtype=torch.bool)
        self.columns = zeros(batch, holes, dtype=torch.long)
        self.present, self.live = zeros(batch, holes, dtype=torch.bool), zeros(batch, dtype=torch.bool)
        self.temperature = zeros(batch, MOST_STEPS)
        self.noise = zeros(batch, MOST_STEPS, holes, dtype=torch.long)
        self.uniform = zeros(batch, MOST_STEPS, holes)
        self.bounds, self.stop_below = zeros(batch), zeros(batch)
        self.limit, self.stability = zeros(batch, dtype=torch.long), zeros(batch, dtype=torch.long)
        self.samples = zeros(batch, 1, dtype=torch.bool)
        self.bias: LogitBias | None = None
        if bucket.bias:
            values = zeros(batch * bucket.bias, config.vocab_size, dtype=weight.dtype)
            self.bias = LogitBias(values, zeros(batch * holes, dtype=torch.int32))
        # what a step changes
        self.tokens, self.argmax = zeros(batch, holes, dtype=torch.long), zeros(batch, holes, dtype=torch.long)
        self.belief = zeros(batch, holes, config.hidden_size, dtype=belief_type)
        self.hidden = zeros(batch, holes, config.hidden_size, dtype=belief_type)
        self.accepted = zeros(batch, holes, dtype=torch.bool)
        self.entropy, self.log_probability = zeros(batch, holes), zeros(batch, holes)
        self.steps, self.unchanged = zeros(batch, dtype=torch.long), zeros(batch, dtype=torch.long)
        self.status = zeros(batch, dtype=torch.long)

    def load(self, rows: Sequence[CanvasState]) -> None:
        """Loads at most as many rows as the bucket holds; other rows stay unchanged and are not live."""
        self.live.zero_()
        for index, row in enumerate(rows):
            self._load(index, row)
        for index in range(len(rows), self.bucket.batch):
            self.memory.empty(index)

    def _load(self, index: int, row: CanvasState) -> None:
        width, holes, ahead = len(row.canvas), len(row.columns), len(row.noise)
        self.memory.load(index, row.kv, width)
        self.known[index, :width], self.known_belief[index, :width] = row.canvas.clamp(min=0), row.known_belief
        self.believes_pins[index] = row.believes_pins
        self.columns[index] = self.bucket.width
        self.columns[index, :holes] = row.columns
        self.present[index] = False
        self.present[index, :holes] = True
        self.live[index] = True
        sampling, span = row.sampling, slice(row.steps, row.steps + ahead)
        self.temperature[index, : sampling.max_steps] = temperatures(sampling).to(self.temperature.device)
        self.noise[index, span, :holes], self.uniform[index, span, :holes] = row.noise, row.uniform
        self.bounds[index] = sampling.entropy_bound
        self.stop_below[index] = sampling.confidence_threshold * width
        self.limit[index], self.stability[index] = sampling.max_steps, sampling.stability_threshold
        self.samples[index] = sampling.token_choice == "sample"
        if self.bias is not None:
            values = self.bias.values.unflatten(0, (self.bucket.batch, -1))[index]
            rows = self.bias.rows.unflatten(0, (self.bucket.batch, -1))[index]
            rows.fill_(index * self.bucket.bias)
            if row.bias is None:
                values[0] = 0
            else:
                values[: len(row.bias.values)] = row.bias.values.to(values.dtype)
                rows[:holes] = row.bias.rows + index * self.bucket.bias
        self.tokens[index, :holes], self.argmax[index, :holes] = row.tokens, row.argmax
        self.belief[index, :holes] = row.belief
        self.steps[index], self.unchanged[index], self.status[index] = row.steps, row.unchanged, RUNNING

    def __call__(self) -> None:
        """One step of every row that is live and running."""
        width, holes = self.bucket.width, self.bucket.holes
        live = self.live & (self.status == RUNNING)
        index_hidden = self.columns[..., None].expand_as(self.belief)
        tokens = self.known.scatter(1, self.columns, self.tokens)[:, :width]
        believes_pins = self.believes_pins | (self.steps > 0)
        belief = torch.where(believes_pins[:, None, None], self.known_belief, 0)
        belief = belief.scatter(1, index_hidden, self.belief)[:, :width]
        memory = self.memory
        hidden = self.model.denoise(tokens, belief, memory.positions(), memory.masks(), memory)
        hidden = hidden.gather(1, index_hidden.clamp(max=width - 1))
        now = self.steps.clamp(max=MOST_STEPS - 1)[:, None]
        noise, uniform = (x.gather(1, now[..., None].expand(-1, 1, holes))[:, 0] for x in (self.noise, self.uniform))
        temperature = self.temperature.gather(1, now).clamp(min=1e-4).expand(-1, holes)
        stats = self.compute_stats(
            self.model, hidden.flatten(0, 1), temperature.flatten(), uniform.flatten(), self.bias
        )
        argmax, sample, entropy, log_probability = (
            x.view(-1, holes) for x in (stats.argmax, stats.sample, stats.entropy, stats.log_probability)
        )
        accepted = accept(entropy, self.present, self.bounds)
        chosen = torch.where(accepted, torch.where(self.samples, sample, argmax), noise)
        same = ((argmax == self.argmax) | ~self.present).all(dim=1) & (self.steps > 0)
        unchanged = torch.where(same, self.unchanged + 1, 0)
        confident = is_confident(entropy, self.present, self.stop_below) & (unchanged >= self.stability)
        status = torch.where(confident, STABLE, torch.where(self.steps + 1 >= self.limit, OUT_OF_STEPS, RUNNING))
        finite = (entropy.isfinite() | ~self.present).all(dim=1)
        changes = (
            (self.tokens, chosen), (self.argmax, argmax), (self.belief, stats.belief.view_as(self.belief)),
            (self.hidden, hidden), (self.accepted, accepted), (self.entropy, entropy),
            (self.log_probability, log_probability), (self.unchanged, unchanged), (self.steps, self.steps + 1),
            (self.status, torch.where(finite, status, NOT_FINITE)),
        )  # fmt: skip
        for state, new in changes:
            state.copy_(torch.where(live.view(-1, *[1] * (state.dim() - 1)), new, state))

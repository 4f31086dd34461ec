"""The losses: causal cross-entropy on the prompt, and cross-entropy on the holes of a noised canvas.

They follow the public recipes for DiffusionGemma (t ~ U(0, 1), self-conditioning in half of the steps, encoder loss)
with two additions: only holes are noised, and the noise may be a mask token (GIDD, arXiv 2503.04482). Must not know
data files or the optimizer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import NoiseConfig
from engine.memory import Masks
from engine.models.diffusion_gemma import DiffusionGemma
from engine.ops.attention import CAUSAL, causal_mask
from train.head_loss import head_loss
from train.layout import LAST_SPECIAL


@dataclass
class DiffusionBatch:
    """Windows with `canvases` canvases each; the rows of one window are adjacent.

    prompt [windows, prompt], padded right; prompt_length [windows]. canvas [rows, canvas], clean and padded right;
    shown [rows, canvas], the same with slips; canvas_length [rows]; hole [rows, canvas] bool; targets, weight [rows,
    supervised], with targets as canvas columns.
    """

    prompt: Tensor
    prompt_length: Tensor
    canvas: Tensor
    shown: Tensor
    canvas_length: Tensor
    hole: Tensor
    targets: Tensor
    weight: Tensor

    @property
    def canvases(self) -> int:
        """Canvases per prompt."""
        return len(self.canvas) // len(self.prompt)

    @property
    def prompt_length_by_row(self) -> Tensor:
        return self.prompt_length.repeat_interleave(self.canvases)

    def to(self, device: torch.device) -> DiffusionBatch:
        return DiffusionBatch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


class EncoderMemory:
    """Keys and values of the encoder pass, with gradients."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        self.layers.append((key, value))
        return key, value


class DecoderMemory:
    """Gives a canvas the encoder's keys of its prompt and its own; `canvases` share a prompt."""

    def __init__(self, encoder: EncoderMemory, canvases: int) -> None:
        self.encoder, self.canvases = encoder, canvases

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        past_key, past_value = self.encoder.layers[layer]
        if self.canvases > 1:
            past_key = past_key.repeat_interleave(self.canvases, dim=0)
            past_value = past_value.repeat_interleave(self.canvases, dim=0)
        return torch.cat((past_key, key), dim=2), torch.cat((past_value, value), dim=2)


def encoder_masks(model: DiffusionGemma, length: int, device: torch.device) -> Masks:
    """Causal masks; sliding layers need an explicit mask if their window is shorter than `length`."""
    window = model.config.sliding_window
    return {
        "full_attention": CAUSAL,
        "sliding_attention": CAUSAL if window >= length else causal_mask(length, 0, window, device),
    }


def decoder_masks(model: DiffusionGemma, batch: DiffusionBatch) -> Masks:
    """Masks [rows, 1, 1, prompt + canvas]: the prompt without padding (sliding layers: its end) and the canvas."""
    device = batch.prompt.device
    prompt = torch.arange(batch.prompt.shape[1], device=device)[None]
    canvas = torch.arange(batch.canvas.shape[1], device=device)[None] < batch.canvas_length[:, None]
    prompt_length = batch.prompt_length_by_row[:, None]
    unpadded = prompt < prompt_length
    near = unpadded & (prompt > prompt_length - model.config.sliding_window)
    return {
        "full_attention": torch.cat((unpadded, canvas), dim=1)[:, None, None],
        "sliding_attention": torch.cat((near, canvas), dim=1)[:, None, None],
    }


def token_loss(
    model: DiffusionGemma, hidden: Tensor, targets: Tensor, weight: Tensor, compiled: bool = False
) -> Tensor:
    """Weighted mean cross-entropy of `targets` [...] for normed hidden states [..., hidden]."""
    table, cap = model.embed_tokens.weight, model.config.logit_softcap
    return head_loss(hidden, table, targets, weight, cap, hidden.dtype, compiled)


def causal_loss(model: DiffusionGemma, tokens: Tensor, weight: Tensor, compiled: bool = False) -> Tensor:
    """Next-token loss of the encoder. tokens, weight (by target): [batch, length]."""
    hidden, _ = encode(model, tokens)
    return token_loss(model, hidden[:, :-1], tokens[:, 1:], weight[:, 1:], compiled)


def encode(model: DiffusionGemma, tokens: Tensor) -> tuple[Tensor, EncoderMemory]:
    length = tokens.shape[1]
    positions = torch.arange(length, device=tokens.device)[None]
    memory = EncoderMemory()
    return model.encode(tokens, positions, encoder_masks(model, length, tokens.device), memory), memory


def add_noise(
    batch: DiffusionBatch,
    noise: NoiseConfig,
    vocab: int,
    generator: torch.Generator | None,
    fixed_level: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(canvas with noise in its holes, noised positions), both [rows, canvas].

    The noise level of a row is 1 in three tenths of the rows (the first step of every infill) and uniform otherwise, or
    `fixed_level`. Rows that are one hole get light uniform noise; rows with slips get no other noise.
    """
    device, shape = batch.canvas.device, batch.canvas.shape

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, device=device, generator=generator)

    level = torch.where(uniform(shape[0], 1) < 0.3, torch.ones(1, device=device), uniform(shape[0], 1))
    if fixed_level is not None:
        level = torch.full_like(level, fixed_level)
    whole = batch.hole.all(dim=1, keepdim=True)
    slipped = batch.shown != batch.canvas
    level = torch.where(whole, 0.15 * level, level)
    level = torch.where(slipped.any(dim=1, keepdim=True), 0.0, level)
    noised = batch.hole & (uniform(*shape) < level)
    drawn = torch.randint(vocab, shape, device=device, generator=generator)
    if noise.kind != "uniform":
        share = 0.0 if noise.kind == "mask" else noise.uniform_share
        masked = (uniform(*shape) >= share) & ~whole
        drawn = torch.where(masked, torch.full_like(drawn, noise.mask_token_id or 0), drawn)
    return torch.where(noised, drawn, batch.shown), noised | slipped


def diffusion_loss(
    model: DiffusionGemma,
    batch: DiffusionBatch,
    noisy: Tensor,
    noised: Tensor,
    self_condition: bool,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """(loss on the holes, causal loss of the encoder on the prompt)."""
    hidden, memory = encode(model, batch.prompt)
    unpadded = torch.arange(batch.prompt.shape[1], device=batch.prompt.device)[None] < batch.prompt_length[:, None]
    weight = (unpadded & (batch.prompt > LAST_SPECIAL)).float()
    causal = token_loss(model, hidden[:, :-1], batch.prompt[:, 1:], weight[:, 1:], compiled)

    masks = decoder_masks(model, batch)
    columns_of_canvas = torch.arange(batch.canvas.shape[1], device=batch.prompt.device)
    positions = batch.prompt_length_by_row[:, None] + columns_of_canvas[None]
    decoder_memory = DecoderMemory(memory, batch.canvases)
    columns = batch.targets[..., None].expand(-1, -1, model.config.hidden_size)
    known = ~batch.hole[..., None]
    belief = torch.where(known, model.embed(batch.canvas), 0.0)
    if self_condition:
        with torch.no_grad():
            first = model.denoise(noisy, belief, positions, masks, decoder_memory)
            probabilities = model.logits(first.gather(1, columns)).softmax(dim=-1)
            soft = torch.zeros_like(belief).scatter(1, columns, model.embed_mean(probabilities).to(belief.dtype))
        belief = torch.where(known, belief, soft)
    hidden = model.denoise(noisy, belief, positions, masks, decoder_memory).gather(1, columns)
    emphasis = torch.where(noised.gather(1, batch.targets), 1.0, 0.1)
    targets = batch.canvas.gather(1, batch.targets)
    return token_loss(model, hidden, targets, batch.weight * emphasis, compiled), causal

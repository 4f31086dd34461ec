"""Tiny models, and what the published generation code of Dream and DreamOn does, written plainly over transformers.

Every position is recomputed at every step, with full attention; probabilities are sorted over the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from engine.checkpoints.qwen2 import plain_qwen2
from engine.masked.config import MaskedConfig, MaskedSampling
from engine.masked.denoiser import MaskedDenoiser
from engine.sampler import choose
from tests.engine.tiny_qwen2 import MemoryWeights, in_memory, reference

DELETE, MASK, EXPAND = 155, 156, 157
VOCAB = 160
Draw = Callable[[int, int], Tensor]


def tiny_config(model: Qwen2ForCausalLM, **changes: object) -> MaskedConfig:
    sizes = {**vars(in_memory(model).config), "mask": MASK, "expand": EXPAND, "delete": DELETE, **changes}
    return MaskedConfig(**sizes)  # type: ignore[arg-type]


@cache
def tiny_reference(seed: int = 0) -> Qwen2ForCausalLM:
    return reference(seed, vocab_size=VOCAB, tie_word_embeddings=False)


def tiny_masked(
    model: Qwen2ForCausalLM, cached: bool = False, draws: Draw | None = None, **changes: object
) -> MaskedDenoiser:
    """The engine's denoiser with the weights of `model`, in fp32."""
    weights = MemoryWeights(tiny_config(model, **changes), model.state_dict())
    backbone = plain_qwen2(weights, torch.device("cpu"), torch.float32)
    return MaskedDenoiser(backbone, cached=cached, draws=draws)


def draws(seed: int = 0) -> Draw:
    """Gives callers that ask for the same counts in the same order the same random numbers."""
    generator = torch.Generator().manual_seed(seed)
    return lambda row, count: torch.rand(count, generator=generator)


@torch.no_grad()
def predictions(model: Qwen2ForCausalLM, tokens: Sequence[int], shifted: bool = True) -> Tensor:
    """[length, vocab]: the logits for every position, with full attention."""
    everything = torch.zeros(1, 1, len(tokens), len(tokens))
    logits = model(torch.tensor([tokens]), attention_mask=everything).logits[0]
    return torch.cat([logits[:1], logits[:-1]]) if shifted else logits


def fill(
    model: Qwen2ForCausalLM,
    before: Sequence[int],
    hole: int,
    after: Sequence[int],
    sampling: MaskedSampling,
    draw: Draw,
    most: int | None = None,
) -> list[list[int]]:
    """The contents of the hole after every step that changed it. most: slots; None if the hole keeps its length."""
    tokens, size, budget = [*before, *[MASK] * hole, *after], hole, most or 0
    history = []
    times = torch.linspace(1, sampling.eps, sampling.max_steps + 1)
    for step in range(sampling.max_steps):
        masks = [at for at, token in enumerate(tokens) if token == MASK]
        if not masks:
            break
        last = step + 1 == sampling.max_steps
        logits = predictions(model, tokens)[masks]
        logits[:, MASK] = -1e4
        if most is None or size == most or budget == 0 or last:
            logits[:, EXPAND] = -1e4
        if most is None:
            logits[:, DELETE] = -1e4
        if sampling.order == "origin":
            share = torch.ones(()) if last else 1 - times[step + 1] / times[step]
            moves = draw(0, len(masks)) < share
            masks = [mask for mask, now in zip(masks, moves.tolist(), strict=True) if now]
            if not masks:
                continue
            chosen, _ = sample(logits[moves], sampling, draw)
            picked = list(range(len(masks)))
        else:
            if sampling.tokens_per_step is not None:
                count = max(sampling.tokens_per_step, -(-len(masks) // (sampling.max_steps - step)))
            else:
                count = len(masks) if last else int(len(masks) * (1 - times[step + 1] / times[step]))
            if count == 0:
                continue
            chosen, confidence = sample(logits, sampling, draw)
            picked = confidence.topk(min(count, len(masks))).indices.tolist()
        for index in picked:
            tokens[masks[index]] = int(chosen[index])
        deleted = [mask for mask in masks if tokens[mask] == DELETE]
        if deleted and sampling.delete_rest:
            for mask in masks:
                if mask > deleted[0] and tokens[mask] == MASK:
                    tokens[mask] = DELETE
        for mask in reversed(masks):
            if tokens[mask] == EXPAND:
                tokens[mask : mask + 1] = [MASK, MASK]
                size, budget = size + 1, budget - 1
            elif tokens[mask] == DELETE:
                del tokens[mask]
                size -= 1
        history.append(tokens[len(before) : len(before) + size])
    return history


def sample(logits: Tensor, sampling: MaskedSampling, draw: Draw) -> tuple[Tensor, Tensor]:
    """Tokens and confidence, as `sample_tokens` of the published code computes them."""
    if sampling.temperature > 0:
        logits = logits / sampling.temperature
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        removed = ordered.softmax(dim=-1).cumsum(dim=-1) > sampling.top_p
        removed = torch.cat([torch.zeros_like(removed[:, :1]), removed[:, :-1]], dim=1)
        logits = logits.masked_fill(torch.zeros_like(removed).scatter(1, order, removed), -torch.inf)
    if sampling.top_k is not None:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[:, -1:], -torch.inf)
    probabilities = logits.softmax(dim=-1)
    confidence, tokens = probabilities.max(dim=-1)
    if sampling.temperature > 0:
        tokens = choose(probabilities, draw(0, len(logits)))
        confidence = probabilities.gather(1, tokens[:, None])[:, 0]
    if sampling.order == "topk_margin":
        first, second = probabilities.sort(descending=True).values[:, :2].T
        confidence = first - second
    if sampling.order == "entropy":
        confidence = (probabilities * (probabilities + 1e-10).log()).sum(dim=-1)
    return tokens, confidence

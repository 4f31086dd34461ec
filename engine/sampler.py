"""One sampling decision: which tokens of a canvas are accepted, what replaces the others, and whether it is done.

Source: transformers, `generation_diffusion_gemma.py` (EntropyBoundSampler, arXiv 2505.24857;
LinearTemperatureScheduleLogitsProcessor; StableAndConfidentStoppingCriteria). Sees only hole positions, so pinned
tokens do not count for the entropy bound, and as certain for the stopping rule. Must not know the model.

Shapes: rows, holes (padded to the widest row; `present` [rows, holes] marks the real ones), vocab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from engine.config import NoiseConfig, SamplingConfig
from engine.kernels import usable


class Draws(Protocol):
    """The source of randomness. `rows` are the identities of the rows in the batch."""

    def noise(self, rows: Sequence[int], present: Tensor) -> Tensor:
        """Noise tokens [rows, holes]."""
        ...

    def choose(self, rows: Sequence[int], probabilities: Tensor, present: Tensor) -> Tensor:
        """A token [rows, holes] from `probabilities` [rows, holes, vocab]."""
        ...


class RowDraws:
    """One generator per row, so that a row gives the same result alone and in a batch."""

    def __init__(self, noise: NoiseConfig, vocab: int, device: torch.device) -> None:
        self.noise_config, self.vocab, self.device = noise, vocab, device
        self.generators: dict[int, torch.Generator] = {}

    def seed(self, row: int, seed: int) -> None:
        self.generators[row] = torch.Generator().manual_seed(seed)

    def forget(self, row: int) -> None:
        self.generators.pop(row, None)

    def noise(self, rows: Sequence[int], present: Tensor) -> Tensor:
        noise = torch.zeros(present.shape, dtype=torch.long)
        for index, (row, count) in enumerate(zip(rows, present.sum(dim=1).tolist(), strict=True)):
            noise[index, :count] = self._noise_row(self.generators[row], count)
        return noise.to(self.device)

    def choose(self, rows: Sequence[int], probabilities: Tensor, present: Tensor) -> Tensor:
        uniform = torch.zeros(present.shape)
        for index, (row, count) in enumerate(zip(rows, present.sum(dim=1).tolist(), strict=True)):
            uniform[index, :count] = torch.rand(count, generator=self.generators[row])
        return choose(probabilities, uniform.to(self.device))

    def ahead(self, row: int, count: int, steps: int, samples: bool) -> tuple[Tensor, Tensor]:
        """What `choose` (if it `samples`) and `noise` would draw for a row in its next steps: uniform numbers and noise
        tokens, each [steps, count], on the CPU."""
        uniform, noise = torch.zeros(steps, count), torch.zeros(steps, count, dtype=torch.long)
        for step in range(steps):
            if samples:
                uniform[step] = torch.rand(count, generator=self.generators[row])
            noise[step] = self._noise_row(self.generators[row], count)
        return uniform, noise

    def _noise_row(self, generator: torch.Generator, count: int) -> Tensor:
        config = self.noise_config
        uniform = torch.randint(self.vocab, (count,), generator=generator)
        if config.kind == "uniform":
            return uniform
        masked = torch.full_like(uniform, config.mask_token_id or 0)
        if config.kind == "mask":
            return masked
        return torch.where(torch.rand(count, generator=generator) < config.uniform_share, uniform, masked)


@dataclass(frozen=True)
class Decision:
    """tokens: the next canvas; argmax: the likeliest tokens; accepted [rows, holes]; entropy in nats;
    probabilities at the step's temperature [rows, holes, vocab]."""

    tokens: Tensor
    argmax: Tensor
    accepted: Tensor
    entropy: Tensor
    probabilities: Tensor


def decide(
    logits: Tensor,
    present: Tensor,
    rows: Sequence[int],
    configs: Sequence[SamplingConfig],
    remaining: Sequence[int],
    draws: Draws,
) -> Decision:
    """Decides for logits [rows, holes, vocab]; per row a config and the remaining steps, including this one."""
    device = logits.device
    temperature = [_temperature(config, left) for config, left in zip(configs, remaining, strict=True)]
    scaled = logits / torch.tensor(temperature, device=device).clamp(min=1e-4)[:, None, None]
    probabilities, entropy, argmax = probabilities_and_entropy(scaled)
    sampling = [index for index, config in enumerate(configs) if config.token_choice == "sample"]
    chosen = argmax
    if len(sampling) == len(rows):
        chosen = draws.choose(rows, probabilities, present)
    elif sampling:
        chosen = argmax.clone()
        sampling_rows = [rows[index] for index in sampling]
        chosen[sampling] = draws.choose(sampling_rows, probabilities[sampling], present[sampling])
    bounds = torch.tensor([config.entropy_bound for config in configs], device=device)
    accepted = accept(entropy, present, bounds)
    tokens = torch.where(accepted, chosen, draws.noise(rows, present))
    return Decision(tokens, argmax, accepted, entropy, probabilities)


def choose(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """A token [...] from `probabilities` [..., vocab]: the first whose cumulative probability exceeds `uniform` [...]
    times the sum."""
    cumulative = probabilities.cumsum(dim=-1)
    point = uniform[..., None] * cumulative[..., -1:]
    found = torch.searchsorted(cumulative, point, right=True).squeeze(-1)
    return found.clamp_(max=probabilities.shape[-1] - 1)


def temperatures(config: SamplingConfig) -> Tensor:
    """[max_steps]: the temperature of each step."""
    return torch.tensor([_temperature(config, left) for left in range(config.max_steps, 0, -1)])


def _temperature(config: SamplingConfig, remaining: int) -> float:
    return config.t_min + (config.t_max - config.t_min) * remaining / config.max_steps


def probabilities_and_entropy(scaled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities [rows, holes, vocab], entropy and argmax [rows, holes] of scaled logits [rows, holes, vocab]."""
    if usable(scaled):
        from engine.kernels.vocabulary import stats_from_logits

        flat = scaled.flatten(0, 1)
        seen = stats_from_logits(flat, 0.0, flat.new_ones(len(flat)), 1)
        shape = scaled.shape[:2]
        return torch.softmax(scaled, dim=-1), seen.entropy.view(shape), seen.argmax.view(shape)
    log_probabilities = torch.log_softmax(scaled, dim=-1)
    probabilities = log_probabilities.exp()
    return probabilities, -torch.einsum("rhv,rhv->rh", probabilities, log_probabilities), _argmax(scaled)


def _argmax(x: Tensor) -> Tensor:
    """The first of the largest entries over the last dimension; on a CPU NumPy takes a fifth of the time."""
    if x.device.type != "cpu":
        return x.max(dim=-1).indices
    return torch.from_numpy(np.argmax(x.numpy(), axis=-1))


def accept(entropy: Tensor, present: Tensor, bounds: Tensor) -> Tensor:
    """The positions of lowest entropy whose sum, without its largest term, stays within `bounds` [rows]."""
    ordered, order = entropy.masked_fill(~present, torch.inf).sort(dim=-1)
    within = ordered.cumsum(dim=-1) - ordered <= bounds[:, None]
    return torch.zeros_like(present).scatter(-1, order, within & ordered.isfinite())


def is_confident(entropy: Tensor, present: Tensor, bounds: Tensor) -> Tensor:
    """[rows]: whether the sum of the entropies of the holes is below the bound [rows].

    The bound of a row is its threshold times the width of its canvas, as in the release, where no position is pinned:
    the mean entropy of the whole canvas is compared, in which pinned positions count as certain.
    """
    return (entropy * present).sum(dim=-1) < bounds

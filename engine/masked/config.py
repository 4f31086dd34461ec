"""What the checkpoint of a masked diffusion model says, as typed values: its special tokens, and how it is sampled.

Source of the names: DreamLM/Dream, DreamLM/DreamOn and pengzhangzhi/Open-dLLM, their generation configurations. Must
not know where the files came from, or weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from engine.errors import ModelError
from engine.models.qwen2 import Qwen2Config

Order = Literal["origin", "maskgit_plus", "topk_margin", "entropy", "p2"]
MOST_STEPS = 1 << 16
VARIED_TEMPERATURE = 0.6  # least temperature of varied sampling


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(Qwen2Config):
    """A Qwen2 that reads both ways.

    mask: the token of a position to fill. expand: the token that stands for two masks, None if the model does not
    change lengths. delete: the token that removes its position; only with `expand`. shifted: whether the output at a
    position predicts the next one, as in the causal model that it was made from.
    """

    mask: int
    expand: int | None = None
    delete: int | None = None
    shifted: bool = True

    @property
    def canvas_length(self) -> int:
        """A canvas may be as wide as the positions reach."""
        return self.max_positions

    def __post_init__(self) -> None:
        for name in ("mask", "expand", "delete"):
            token = getattr(self, name)
            if token is not None and not 0 <= token < self.vocab_size:
                raise ModelError(f"The {name} token {token} is not in the model's vocabulary; choose another model.")


@dataclass(frozen=True)
class MaskedSampling:
    """How masks become tokens.

    order: which are filled first. `origin` at random, `maskgit_plus` by the probability of the token, `topk_margin` by
    its distance to the second one, `entropy` by the least entropy; `p2` also masks the least likely ones again.
    max_steps: most passes over a canvas, and the length of the linear schedule. tokens_per_step: how many are filled in
    a pass; None for the linear schedule of the reference, from time 1 to `eps`. threshold: a token this likely is
    filled at once, beside the others. temperature 0 takes the likeliest token. top_p, top_k: of the tokens drawn from.
    order_temperature: randomness of the order. delete_rest: whether a deletion also deletes the masks after it in its
    hole. review: whether tokens that a hole starts with become masks again if they are not the likeliest, given all
    other tokens. The defaults are those of the published evaluation of DreamOn.
    """

    order: Order = "entropy"
    max_steps: int = 256
    tokens_per_step: int | None = 1
    threshold: float | None = None
    temperature: float = 0.2
    top_p: float | None = 0.9
    top_k: int | None = None
    order_temperature: float = 0.0
    eps: float = 1e-3
    delete_rest: bool = True
    review: bool = False

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ModelError(f"Unknown order {self.order!r} of sampling (`alg`); use {', '.join(get_args(Order))}.")
        counts = [count for count in (self.max_steps, self.tokens_per_step, self.top_k) if count is not None]
        if not all(1 <= count <= MOST_STEPS for count in counts):
            raise ModelError(f"Steps, tokens per step and top_k must be between 1 and {MOST_STEPS}; correct them.")
        shares = [share for share in (self.top_p, self.threshold) if share is not None]
        if not all(0 < share <= 1 for share in shares) or not 0 < self.eps < 1:
            raise ModelError(
                "The sampling settings need top_p and threshold above 0 and at most 1, and eps between 0 and 1."
            )
        if not all(0 <= value < math.inf for value in (self.temperature, self.order_temperature)):
            raise ModelError("The temperatures must be finite and not negative; correct the sampling settings.")

    @staticmethod
    def from_json(config: Mapping[str, Any]) -> MaskedSampling:
        """Reads the content of a `generation_config.json`; absent or null fields keep their defaults.

        A file that transformers wrote from the defaults of a class (`_from_model_config`) says nothing about the model
        and is ignored. With `steps` but no `number_transfer_tokens`, the schedule is linear.
        """
        if config.get("_from_model_config"):
            return MaskedSampling()
        values: dict[str, Any] = {}
        for key, (name, kind) in _FIELDS.items():
            value = config.get(key)
            if value is None or (key == "top_k" and value == 0):
                continue
            if isinstance(value, bool) != (kind is bool) or (kind is int and value != int(value)):
                raise ModelError(f"The generation configuration has {key} {value!r}; fetch the model again.")
            values[name] = kind(value)
        if "max_steps" in values and "tokens_per_step" not in values:
            values["tokens_per_step"] = None
        return MaskedSampling(**values)

    def with_steps(self, max_steps: int | None) -> MaskedSampling:
        return self if max_steps is None else replace(self, max_steps=max_steps)

    def warm(self) -> MaskedSampling:
        return replace(self, review=True)

    def varied(self) -> MaskedSampling:
        return replace(self, temperature=max(self.temperature, VARIED_TEMPERATURE))

    def moves(self, step: int, masks: int) -> int:
        """How many of `masks` masks are filled in step `step`, counted from 0; all of them in the last one."""
        remaining = self.max_steps - step
        if remaining <= 1:
            return masks
        if self.tokens_per_step is None:
            return int(masks * self.share(step))
        return min(masks, max(self.tokens_per_step, -(-masks // remaining)))

    def share(self, step: int) -> Tensor:
        """[]: the share of the masks that the linear schedule fills in a step."""
        times = _times(self.eps, self.max_steps)
        return 1 - times[step + 1] / times[step] if step + 1 < self.max_steps else torch.ones(())


_FIELDS: dict[str, tuple[str, type]] = {
    "alg": ("order", str),
    "steps": ("max_steps", int),
    "number_transfer_tokens": ("tokens_per_step", int),
    "threshold": ("threshold", float),
    "temperature": ("temperature", float),
    "top_p": ("top_p", float),
    "top_k": ("top_k", int),
    "alg_temp": ("order_temperature", float),
    "eps": ("eps", float),
    "pad_eos_to_right": ("delete_rest", bool),
}


@lru_cache(16)
def _times(eps: float, steps: int) -> Tensor:
    return torch.linspace(1, eps, steps + 1)

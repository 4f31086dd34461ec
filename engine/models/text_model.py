"""What every form of the model offers: embeddings, the causal and the bidirectional pass, and logits.

`DiffusionGemma` is the plain form, the reference for the others and the only one that can be trained. Must not know
sampling, pinned tokens or files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config import LayerKind, ModelConfig
from engine.memory import Masks, Memory
from engine.ops.rope import inverse_frequencies


class TextModel(nn.Module, ABC):
    """The embedding, and the interface of both passes. Shapes: batch, length (prompt) or canvas, hidden, vocab."""

    fp8_keys = False  # whether keys and values are kept in E4M3, in half the memory
    has_kernels = False  # whether this is an `engine.models.fused.FusedModel`

    def __init__(self, config: ModelConfig, embed_tokens: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = embed_tokens
        self.embed_scale = config.hidden_size**0.5
        self._ropes = {layer.kind: (layer.rope, layer.head_dim) for layer in config.layers}
        self._frequencies: dict[tuple[LayerKind, torch.device], Tensor] = {}

    @property
    def device(self) -> torch.device:
        return self.embed_tokens.weight.device

    @property
    def kv_dtype(self) -> torch.dtype:
        """The type in which keys and values are kept."""
        return torch.float8_e4m3fn if self.fp8_keys else self.embed_tokens.weight.dtype

    @property
    def weight_bytes(self) -> int:
        """Bytes of memory that the weights take."""
        return sum(parameter.nbytes for parameter in self.parameters())

    def embed(self, tokens: Tensor) -> Tensor:
        """Scaled embeddings of `tokens` [...]: [..., hidden]."""
        return self.embed_tokens(tokens) * self._scale()

    def embed_mean(self, probabilities: Tensor) -> Tensor:
        """Mean of the scaled embeddings under `probabilities` [..., vocab]: [..., hidden]."""
        weight = self.embed_tokens.weight
        return torch.matmul(probabilities.to(weight.dtype), weight) * self._scale()

    def encode(
        self, tokens: Tensor, positions: Tensor, masks: Masks, memory: Memory, keys_only: bool = False
    ) -> Tensor:
        """The causal pass over `tokens` [batch, length], for the keys and values that `memory` receives.

        positions [batch, length]; one mask per kind of layer, as `engine.ops.attention.attend` takes it.
        Returns the normed hidden states [batch, length, hidden]. keys_only: of the last layer only keys and values are
        computed, and the result is meaningless.
        """
        return self._run(self.embed(tokens), positions, masks, memory, encoder=True, keys_only=keys_only)

    @abstractmethod
    def denoise(self, tokens: Tensor, belief: Tensor, positions: Tensor, masks: Masks, memory: Memory) -> Tensor:
        """The bidirectional pass over a canvas `tokens` [batch, canvas].

        belief [batch, canvas, hidden]: the self-conditioning signal, zeros where there is none.
        Returns normed hidden states [batch, canvas, hidden], for `logits`.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Soft-capped logits in fp32, [..., vocab], of normed hidden states [..., hidden]."""
        cap = self.config.logit_softcap
        logits = F.linear(hidden, self.embed_tokens.weight).float()
        if torch.is_grad_enabled():
            return torch.tanh(logits / cap) * cap
        return logits.div_(cap).tanh_().mul_(cap)

    @abstractmethod
    def _run(
        self, x: Tensor, positions: Tensor, masks: Masks, memory: Memory, encoder: bool, keys_only: bool = False
    ) -> Tensor:
        """All layers and the last norm, for `x` [batch, length, hidden]. keys_only: see `encode`."""

    def _scale(self) -> Tensor:
        """sqrt(hidden) rounded to the weights' type, as in training. It is on the CPU: a GPU multiplies with a CPU
        scalar without waiting."""
        return torch.tensor(self.embed_scale, dtype=self.embed_tokens.weight.dtype, device="cpu")

    def _frequency(self, kind: LayerKind, device: torch.device) -> Tensor:
        if (kind, device) not in self._frequencies:
            self._frequencies[kind, device] = inverse_frequencies(*self._ropes[kind]).to(device)
        return self._frequencies[kind, device]

"""Small random DiffusionGemmas, ours and transformers', with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

from engine.checkpoints.tensor_views import checkpoint_views
from engine.config import ModelConfig
from engine.models.diffusion_gemma import DiffusionGemma

TEXT: dict[str, Any] = {
    "model_type": "diffusion_gemma_text",
    "vocab_size": 120,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_global_key_value_heads": 1,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 24,
    "max_position_embeddings": 512,
}
VISION: dict[str, Any] = {
    "model_type": "gemma4_vision",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def reference(
    seed: int = 0, spread: float = 1.0, canvas_length: int = 12, feedback: float = 1.0, **text: Any
) -> DiffusionGemmaForBlockDiffusion:
    """A random transformers model; layer scalars differ between encoder and decoder, norms are not all one.

    feedback scales the self-conditioning: at full feedback a random model amplifies rounding errors about thirty times
    per step, so whole trajectories can be compared only with less.
    """
    torch.manual_seed(seed)
    config = DiffusionGemmaConfig(text_config={**TEXT, **text}, vision_config=VISION, canvas_length=canvas_length)
    model = DiffusionGemmaForBlockDiffusion(config).eval()
    with torch.no_grad():
        for name, parameter in model.model.decoder.named_parameters():
            if name.endswith("norm.weight") or "layernorm" in name or name.endswith("scale"):
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            elif parameter.dim() > 1:
                parameter.mul_(spread / (0.02 * parameter.shape[-1] ** 0.5))
        model.model.decoder.self_conditioning.down_proj.weight.mul_(feedback)
        for layers in (model.model.encoder.language_model.layers, model.model.decoder.layers):
            for layer in layers:
                layer.layer_scalar.uniform_(0.5, 1.1)
    return model


def ours(model: DiffusionGemmaForBlockDiffusion) -> DiffusionGemma:
    """The engine's model with the weights of `model`."""
    config = model.config.to_dict()
    mine = DiffusionGemma(ModelConfig.from_json(_as_in_a_file(config)))
    state = model.state_dict()
    with torch.no_grad():
        for name, view in checkpoint_views(mine).items():
            view.copy_(state[name])
    return mine.eval().requires_grad_(False)


def _as_in_a_file(config: dict[str, Any]) -> dict[str, Any]:
    import json

    return json.loads(json.dumps(config))


def count_passes(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of every pass of the encoder from now on."""
    passes: list[int] = []
    encode = model.encode

    def counted(tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        passes.append(tokens.numel())
        return encode(tokens, *rest)

    monkeypatch.setattr(model, "encode", counted)
    return passes

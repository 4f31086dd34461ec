"""Every tensor of a plain checkpoint by name, as a view into the parameters of the model.

Source of the names: transformers, `modeling_diffusion_gemma.py`. Must not know files or how a tensor is stored.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor

from engine.models.diffusion_gemma import DiffusionGemma, FeedForward, Layer
from engine.ops.norm import RMSNorm


def checkpoint_views(model: DiffusionGemma) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by name, as a view into the model's parameters, some of which are fused.

    On the meta device the views give the shapes; elsewhere writing to a view writes the model.
    """
    conditioning = model.self_conditioning
    views = {
        "model.decoder.embed_tokens.weight": model.embed_tokens.weight.detach(),
        "model.decoder.norm.weight": _gain(model.norm),
        "model.decoder.self_conditioning.pre_norm.weight": _gain(conditioning.pre_norm),
        **_feed_forward_views("model.decoder.self_conditioning.", conditioning.mlp),
    }
    for index, layer in enumerate(model.layers):
        views |= _layer_views(f"model.decoder.layers.{index}.", cast(Layer, layer))
        views[f"model.encoder.language_model.layers.{index}.layer_scalar"] = cast(Layer, layer).encoder_scalar
    return views


def _feed_forward_views(prefix: str, mlp: FeedForward) -> dict[str, Tensor]:
    gate, up = mlp.gate_up_proj.weight.detach().chunk(2)
    weights = {"gate": gate, "up": up, "down": mlp.down_proj.weight.detach()}
    return {f"{prefix}{name}_proj.weight": weight for name, weight in weights.items()}


def _layer_views(prefix: str, layer: Layer) -> dict[str, Tensor]:
    attention, router = layer.attention, layer.router
    norms = {
        "self_attn.q_norm": attention.q_norm,
        "self_attn.k_norm": attention.k_norm,
        "input_layernorm": layer.input_norm,
        "post_attention_layernorm": layer.post_attention_norm,
        "pre_feedforward_layernorm": layer.pre_mlp_norm,
        "post_feedforward_layernorm_1": layer.post_mlp_norm,
        "pre_feedforward_layernorm_2": layer.pre_experts_norm,
        "post_feedforward_layernorm_2": layer.post_experts_norm,
        "post_feedforward_layernorm": layer.post_feedforward_norm,
    }
    heads = {"q": attention.heads, "k": attention.kv_heads, "v": attention.kv_heads}
    if not attention.has_value:
        del heads["v"]
    projections = attention.qkv_proj.weight.detach().split([count * attention.head_dim for count in heads.values()])
    return {
        **{f"{prefix}{name}.weight": _gain(norm) for name, norm in norms.items()},
        **{f"{prefix}self_attn.{name}_proj.weight": part for name, part in zip(heads, projections, strict=True)},
        prefix + "self_attn.o_proj.weight": attention.o_proj.weight.detach(),
        **_feed_forward_views(prefix + "mlp.", layer.mlp),
        prefix + "router.proj.weight": router.proj.weight.detach(),
        prefix + "router.scale": router.scale.detach(),
        prefix + "router.per_expert_scale": router.per_expert_scale.detach(),
        prefix + "experts.gate_up_proj": layer.experts.gate_up_proj.detach(),
        prefix + "experts.down_proj": layer.experts.down_proj.detach(),
        prefix + "layer_scalar": layer.decoder_scalar,
    }


def _gain(norm: RMSNorm) -> Tensor:
    return cast(Tensor, norm.weight).detach()

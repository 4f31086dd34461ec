"""Maps each weight of the model to the stored matrices it is made of, in checkpoints that store experts one by one.

Must not know how a matrix is stored.
"""

from __future__ import annotations

from torch import Tensor

from engine.checkpoints.published import Matrix
from engine.checkpoints.tensor_views import checkpoint_views
from engine.config import ModelConfig
from engine.models.diffusion_gemma import DiffusionGemma

DECODER = "model.decoder."


def matrices_of(config: ModelConfig) -> dict[str, list[Matrix]]:
    """By weight name in `engine.models.diffusion_gemma`: the stored matrices that are concatenated along the rows to
    form it; for expert weights, expert by expert."""
    hidden, inner, size = config.hidden_size, config.intermediate_size, config.expert_intermediate_size
    found: dict[str, list[Matrix]] = {}
    for index, layer in enumerate(config.layers):
        base, name_prefix = f"{DECODER}layers.{index}.", f"layers.{index}."
        width = {"q": config.num_heads, "k": layer.num_kv_heads, "v": layer.num_kv_heads}
        if not layer.has_value_projection:
            del width["v"]
        found[name_prefix + "attention.qkv_proj"] = [
            Matrix(f"{base}self_attn.{name}_proj", heads * layer.head_dim, hidden) for name, heads in width.items()
        ]
        attended = config.num_heads * layer.head_dim
        found[name_prefix + "attention.o_proj"] = [Matrix(base + "self_attn.o_proj", hidden, attended)]
        found[name_prefix + "mlp.gate_up_proj"] = [
            Matrix(f"{base}mlp.{name}_proj", inner, hidden) for name in ("gate", "up")
        ]
        found[name_prefix + "mlp.down_proj"] = [Matrix(base + "mlp.down_proj", hidden, inner)]
        experts = [f"{base}experts.{expert}." for expert in range(config.num_experts)]
        found[name_prefix + "experts.gate_up_proj"] = [
            Matrix(f"{expert}{name}_proj", size, hidden) for expert in experts for name in ("gate", "up")
        ]
        found[name_prefix + "experts.down_proj"] = [Matrix(expert + "down_proj", hidden, size) for expert in experts]
    return found


def _is_layer_matrix(name: str) -> bool:
    """Whether a tensor of a plain checkpoint is one of the matrices above."""
    kinds = (".self_attn.", ".mlp.", ".experts.")
    return name.startswith(DECODER + "layers.") and any(kind in name for kind in kinds) and "_norm." not in name


def plain_views(model: DiffusionGemma) -> dict[str, Tensor]:
    """The views of `checkpoint_views` that are not one of the matrices above."""
    return {name: view for name, view in checkpoint_views(model).items() if not _is_layer_matrix(name)}

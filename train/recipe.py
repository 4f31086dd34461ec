"""Reads a recipe file: model shape, window layout, run settings; derives the model's `config.json` from it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Set
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from engine.config import DEFAULT_ROPE, ModelConfig
from engine.errors import InputError
from train.layout import MASK, LayoutConfig

MODEL_FIELDS = frozenset(
    "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
    "full_every sliding_window num_experts top_k_experts moe_intermediate_size noise uniform_share".split()
)


@dataclass(frozen=True)
class RunConfig:
    """rows: windows per step and process. causal_share, decay_share: shares of the budget. mixed_causal: share of the
    steps in the diffusion phase that stay causal. muon_lr: for the matrices of the layers; adam_lr: for the rest.
    workers: processes that make batches; 0 for a thread. evaluate_every: seconds."""

    seed: int = 1
    rows: int = 16
    causal_share: float = 0.5
    warmup_steps: int = 100
    decay_share: float = 0.3
    muon_lr: float = 3e-3
    adam_lr: float = 2e-3
    weight_decay: float = 0.05
    encoder_loss_weight: float = 0.5
    mixed_causal: float = 0.0
    workers: int = 0
    evaluate_every: float = 300.0


@dataclass(frozen=True)
class Recipe:
    config_json: dict[str, Any]
    layout: LayoutConfig
    run: RunConfig

    @property
    def model(self) -> ModelConfig:
        return ModelConfig.from_json(self.config_json)


def read_recipe(path: Path, vocab_size: int) -> Recipe:
    """Raises InputError if the file is missing, is not TOML, or has unknown or missing fields."""
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"The recipe {path} cannot be read ({error}); see train/pocket.toml for a valid one."
        ) from error
    _refuse_unknown(content, {"model", "layout", "run"}, path)
    model, layout, run = (content.get(section, {}) for section in ("model", "layout", "run"))
    _refuse_unknown(model, MODEL_FIELDS, path)
    _refuse_unknown(layout, {field.name for field in fields(LayoutConfig)}, path)
    _refuse_unknown(run, {field.name for field in fields(RunConfig)}, path)
    if missing := MODEL_FIELDS - set(model):
        raise InputError(f"The recipe {path} needs these fields under [model]: {', '.join(sorted(missing))}.")
    sizes = LayoutConfig(**layout)
    return Recipe(_config_json(model, vocab_size, sizes), sizes, RunConfig(**run))


def _refuse_unknown(values: Mapping[str, Any], known: Set[str], path: Path) -> None:
    if unknown := set(values) - known:
        raise InputError(f"The recipe {path} has unknown fields: {', '.join(sorted(unknown))}; remove them.")


def _config_json(model: dict[str, Any], vocab_size: int, layout: LayoutConfig) -> dict[str, Any]:
    """A `config.json` that both transformers and the engine read, without a vision tower."""
    layers, every = model["num_hidden_layers"], model["full_every"]
    noise = {"kind": model["noise"], "mask_token_id": MASK, "uniform_share": model["uniform_share"]}
    copied = {name: value for name, value in model.items() if name not in ("full_every", "noise", "uniform_share")}
    text = {
        **copied,
        "model_type": "diffusion_gemma_text",
        "vocab_size": vocab_size,
        "layer_types": ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)],
        "global_head_dim": model["head_dim"],
        "num_global_key_value_heads": model["num_key_value_heads"],
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 4096,
        "rope_parameters": DEFAULT_ROPE,
        "rms_norm_eps": 1e-6,
        "final_logit_softcapping": 30.0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "tie_word_embeddings": True,
    }
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "model_type": "diffusion_gemma",
        "canvas_length": layout.canvas,
        "tie_word_embeddings": True,
        "text_config": text,
        "gesso": {
            "family": "pocket",
            "noise": noise,
            "window": {name: getattr(layout, name) for name in ("prompt", "far_suffix", "header", "canvas")},
        },
    }

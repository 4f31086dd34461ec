"""A scaled-down DiffusionGemma in a folder laid out as the 26B is published: in bfloat16, NVFP4 and FP8.

transformers writes the bfloat16 folder: shards with an index, the vision tower, layer scalars that differ between
encoder and decoder, and no tied copies. The others have the same tensors, with the projections that these builds
quantize stored as NVIDIA ModelOpt (NVFP4: experts only) and compressed-tensors (FP8: all projections of the layers) do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.speed.large_vocabulary import large_tokenizer
from engine.checkpoints.config_files import CONFIG_FILE, MODELOPT_FILE
from engine.checkpoints.weight_files import INDEX_FILE
from engine.released import TRUE_26B
from tests.engine.checkpoints.test_published import fp8_by_row, modelopt
from tests.engine.tiny import VISION, reference

Build = Literal["bfloat16", "nvfp4", "fp8"]
Store = Callable[[str, Tensor], tuple[dict[str, Tensor], Tensor]]
BUILDS: tuple[Build, ...] = ("bfloat16", "nvfp4", "fp8")
VOCAB, SHARD = 2048, "200KB"
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_global_key_value_heads": 1,
    "sliding_window": 64,
    "num_experts": 8,
    "top_k_experts": 2,
    "moe_intermediate_size": 32,
}
LAYER_TYPES = ["sliding_attention"] * 5 + ["full_attention"]
TEXT = {
    **TRUE_26B["text_config"],
    **SMALL,
    "model_type": "diffusion_gemma_text",
    "layer_types": LAYER_TYPES,
    "hidden_activation": "gelu_pytorch_tanh",
    "final_logit_softcapping": 30.0,
    "max_position_embeddings": 262_144,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
CONFIG = {
    "architectures": ["DiffusionGemmaForBlockDiffusion"],
    "model_type": "diffusion_gemma",
    "canvas_length": 256,
    "dtype": "bfloat16",
    "eos_token_id": [1, 106],
    "tie_word_embeddings": True,
    "text_config": TEXT,
    "vision_config": VISION,
}
GENERATION = {
    "max_denoising_steps": 48,
    "t_min": 0.4,
    "t_max": 0.8,
    "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.1},
}
QUANTIZATION: dict[Build, dict[str, Any]] = {
    "nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head", "model.encoder.vision_tower*"]},
    "fp8": {"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"]},
}


def save_published(folder: Path, build: Build = "bfloat16") -> Path:
    """Writes the model to `folder`, which must not exist, and returns it."""
    model = reference(canvas_length=256, feedback=0.05, **SMALL, layer_types=LAYER_TYPES).bfloat16()
    model.save_pretrained(folder, max_shard_size=SHARD)
    config = dict(CONFIG)
    if build != "bfloat16":
        _quantize_shards(folder, *((modelopt, (".experts.",)) if build == "nvfp4" else (fp8_by_row, KINDS)))
        config["quantization_config"] = QUANTIZATION[build]
    if build == "nvfp4":
        (folder / MODELOPT_FILE).write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    large_tokenizer(VOCAB, VOCAB // 3).save(str(folder / "tokenizer.json"))
    return folder


KINDS = (".experts.", ".self_attn.", ".mlp.")


def _quantize_shards(folder: Path, store: Store, kinds: tuple[str, ...]) -> None:
    """Replaces the projections of these kinds in every shard, and renews the index."""
    index = json.loads((folder / INDEX_FILE).read_text())
    shards: dict[str, list[str]] = {}
    for name, file in index["weight_map"].items():
        shards.setdefault(file, []).append(name)
    places: dict[str, str] = {}
    for file in shards:
        stored: dict[str, Tensor] = {}
        for name, tensor in load_file(folder / file).items():
            stored |= _stored(name, tensor, store, kinds)
        save_file(stored, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(stored, file)
    (folder / INDEX_FILE).write_text(json.dumps({**index, "weight_map": places}))


def _stored(name: str, tensor: Tensor, store: Store, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    in_decoder = name.startswith("model.decoder.layers.") and any(kind in name for kind in kinds)
    if not in_decoder or "_proj" not in name:
        return {name: tensor}
    if ".experts." not in name:
        return store(name.removesuffix(".weight"), tensor.float())[0]
    prefix, _, kind = name.rpartition(".")
    parts = tensor.chunk(2, dim=1) if kind == "gate_up_proj" else (tensor,)
    found: dict[str, Tensor] = {}
    for part, own in zip(parts, ("gate", "up") if len(parts) == 2 else ("down",), strict=True):
        for expert, matrix in enumerate(part):
            found |= store(f"{prefix}.{expert}.{own}_proj", matrix.float())[0]
    return found

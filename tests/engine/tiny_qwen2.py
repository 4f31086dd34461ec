"""Small random Qwen2 models of transformers, saved in the layouts that the engine reads, or packed in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from engine.checkpoints.qwen2 import pack_qwen2
from engine.models import qwen2 as engine_qwen2
from engine.models.packed_qwen2 import FloatProduct, PackedQwen2
from engine.quantized import QuantizedWeight

if TYPE_CHECKING:
    import gguf

SIZES: dict[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": True,
}
TOKENS = [f"token{number}" for number in range(SIZES["vocab_size"])]
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def reference(seed: int = 0, **sizes: Any) -> Qwen2ForCausalLM:
    """A random model in fp32 whose biases and norm weights are not trivial."""
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(**{**SIZES, **sizes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return model


def save_folder(model: Qwen2ForCausalLM, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def save_gguf(
    model: Qwen2ForCausalLM,
    file: Path,
    kind: gguf.GGMLQuantizationType | None = None,
    architecture: str = "qwen2",
    leave_out: str = "",
) -> Path:
    """The model as llama.cpp's converter writes it, matrices stored as `kind` (None: float32)."""
    import gguf  # absent on a bare GPU machine

    config, writer = model.config, gguf.GGUFWriter(file, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_token_list(TOKENS[: config.vocab_size])
    for name, tensor in model.state_dict().items():
        stored = gguf_name(name)
        if stored == leave_out or (config.tie_word_embeddings and name == "lm_head.weight"):
            continue
        values = tensor.numpy().astype(np.float32)
        if values.ndim == 2 and kind not in (None, gguf.GGMLQuantizationType.F32):
            writer.add_tensor(stored, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(stored, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def gguf_name(name: str) -> str:
    fixed = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, kind = name.rsplit(".", 1)
    if stem in fixed:
        return f"{fixed[stem]}.{kind}"
    _, _, index, part = stem.split(".", 3)
    return f"blk.{index}.{PARTS[part]}.{kind}"


def resident_bytes(file: Path) -> int:
    """Of the mappings of a file in this process; only Linux says it."""
    size, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        inside = line.endswith(f" {file}") if "-" in line.partition(" ")[0] else inside
        size += 1024 * int(line.split()[1]) if inside and line.startswith("Rss:") else 0
    return size


class MemoryWeights:
    """Weights that a dictionary holds, for models without a file. place: only named in error messages."""

    stored_bytes: int | None = None

    def __init__(self, config: engine_qwen2.Qwen2Config, state: Mapping[str, Tensor]) -> None:
        self.place, self.config, self.state = Path("memory"), config, state
        self.shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}

    def read(self, name: str, first: int = 0, end: int | None = None) -> Tensor:
        return self.state[name][first:end].to(torch.float32, copy=True)

    def rows(self, name: str, tokens: Tensor) -> Tensor:
        return self.state[name][tokens].float()

    def quantized(self, name: str, dtype: torch.dtype) -> QuantizedWeight:
        return QuantizedWeight("plain", self.state[name].to(dtype))

    def drop_pages(self) -> None:
        return


def packed(model: Qwen2ForCausalLM) -> PackedQwen2:
    """The same model in the engine, with all products in fp32."""
    return pack_qwen2(in_memory(model), FloatProduct, kv_dtype=torch.float32)


def in_memory(model: Qwen2ForCausalLM) -> MemoryWeights:
    config = model.config
    sizes = engine_qwen2.Qwen2Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=config.hidden_size // config.num_attention_heads,
        max_positions=config.max_position_embeddings,
        norm_eps=config.rms_norm_eps,
        tied=config.tie_word_embeddings,
    )
    return MemoryWeights(sizes, model.state_dict())

"""Kernels compile to machine code for the GPUs they are made for, on a machine that has none, within their memory.

What the interpreter cannot show: types that change in a branch, tiles that a GPU's shared memory does not hold.
"""

from __future__ import annotations

from typing import Any

import pytest

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from engine.kernels import attention, mixture, norms, routing, vocabulary  # noqa: E402

SHARED = {89: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}  # bytes a block may take; CUDA's programming guide
ROOMY = (90, 100)
POINTERS = {
    "x": "*bf16",
    "out": "*bf16",
    "order": "*i32",
    "blocks": "*i32",
    "weights": "*fp32",
    "query": "*bf16",
    "key": "*bf16",
    "value": "*bf16",
    "mask": "*u8",
    "parts": "*fp32",
    "sums": "*fp32",
    "row_scales": "*fp32",
}
STORED = {0: ("*bf16", "*bf16", 0), 1: ("*fp8e4nv", "*fp32", 0), 2: ("*u8", "*fp16", 32), 3: ("*u8", "*fp8e4nv", 16)}


def shared_bytes(kernel: Any, capability: int, warps: int, stages: int, types: dict[str, str], **constants: Any) -> int:
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(kernel.arg_names) if signature[n][0] == "*"}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "num_stages": stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert compiled.asm["cubin"]
    return compiled.metadata.shared


@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("code", STORED)
def test_grouped_products(code: int, capability: int) -> None:
    numbers, scales, group = STORED[code]
    first, second = mixture.ROOMY if capability in ROOMY else mixture.TIGHT
    types = {**POINTERS, "numbers": numbers, "group_scales": scales}
    stored = {"FORMAT": code, "GROUP": group, "HAS_ROW_SCALES": code in (1, 3)}
    for tokens in mixture.TOKEN_BLOCKS[:: len(mixture.TOKEN_BLOCKS) - 1]:
        used = shared_bytes(
            mixture._gate_up, capability, first.warps, first.stages, types, **stored, K=2816, SIZE=704, TOP_K=8,
            GROUPS=2816 // group if group else 0, OUT_IN_HALVES=code > 1,
            TOKENS=tokens, ROWS=first.rows, BLOCK=first.columns,
        )  # fmt: skip
        assert used <= SHARED[capability]
    used = shared_bytes(
        mixture._down, capability, second.warps, second.stages, types, **stored, K=704, HIDDEN=2816,
        GROUPS=704 // group if group else 0, TOKENS=64, ROWS=second.rows, BLOCK=second.columns,
    )  # fmt: skip
    assert used <= SHARED[capability]


@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("keys", ["*bf16", "*fp8e4nv"])
@pytest.mark.parametrize(("dim", "groups"), [(256, 2), (512, 8)])
def test_attention(dim: int, groups: int, keys: str, capability: int) -> None:
    types = {**POINTERS, "key": keys, "value": keys}
    cut = (attention.ROOMY if capability in ROOMY else attention.TIGHT)[dim]
    used = shared_bytes(
        attention._attend, capability, cut.warps, cut.stages, types, GROUPS=groups, D=dim, HAS_MASK=True,
        SPLITS=2, QUERIES=cut.queries, KEYS=cut.keys,
    )  # fmt: skip
    assert used <= SHARED[capability]


@pytest.mark.parametrize("capability", [89, 90])
def test_small_kernels(capability: int) -> None:
    scores = {"scores": "*bf16", "scale": "*fp32", "weights": "*fp32", "indices": "*i32"}
    assert shared_bytes(routing._choose, capability, 1, 3, scores, E=128, K=8, WIDTH=128) <= 4096
    assert shared_bytes(routing._choose, capability, 1, 3, scores, E=1, K=1, WIDTH=1) <= 4096
    plan = {"indices": "*i32", "order": "*i32", "blocks": "*i32"}
    sizes = {"E": 128, "WIDTH": 256, "BLOCK": 16, "CHUNK": 1024, "BLOCKS_WIDTH": 256}
    assert shared_bytes(routing._schedule, capability, 4, 3, plan, **sizes) <= 32_768
    types = {name: "*bf16" for name in ("projected", "cos", "sin", "q_gain", "k_gain", "query", "key", "value")}
    heads = {"HEADS": 16, "KV_HEADS": 2, "PROJECTED": 18, "HAS_VALUE": False, "D": 512, "EPS": 1e-6}
    assert shared_bytes(norms._heads, capability, 1, 3, types, **heads) <= 4096
    types = {name: "*fp32" for name in ("numbers", "candidates", "entropy", "log_probability", "temperature")}
    types |= {"ids": "*i32", "argmax": "*i64", "sample": "*i64", "top_tokens": "*i32", "top_probabilities": "*fp32"}
    merge = {"SAMPLE": True, "KEPT": 4, "TOP": 32, "WIDTH": 2048}
    assert shared_bytes(vocabulary._merge, capability, 8, 3, types, **merge) <= 32_768


@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("has_bias", [False, True])
def test_vocabulary(has_bias: bool, capability: int) -> None:
    types = {name: "*fp32" for name in ("numbers", "candidates", "temperature")}
    types |= {"logits": "*bf16", "bias": "*bf16", "seeds": "*i32", "ids": "*i32"}
    used = shared_bytes(
        vocabulary._from_logits, capability, 4, 3, types, V=262_144, CAP=30.0, HAS_BIAS=has_bias, SAMPLE=True,
        KEPT=vocabulary.PER_BLOCK, TOKENS=vocabulary.VOCAB, ROWS=16,
    )  # fmt: skip
    assert used <= SHARED[capability]

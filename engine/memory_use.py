"""How many bytes the engine needs beside the weights: the one account that loading, the engine and `gesso doctor` use.

It counts what grows with a request: keys and values, the logits, the activations of one layer. Must not know how a step
is made. The sizes are upper limits; the tests compare them with what a step allocates.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import ModelConfig
from engine.memory import Shape

CONTEXT = 8192 + 256  # tokens of a prompt and its canvas that every loaded model must have memory for
RECORDED_PROMPT = 10_240  # the prompt of the recorded step that holds it: see `engine.graphs.recorded_steps`
HOLES = 128  # of one canvas: the longest line
CHUNK, NODES = 1024, 256  # tokens of a prompt, and nodes of a token tree, of one pass
STEPS_AHEAD, VOCAB_BLOCK, BYTES_PER_BLOCK = 64, 128, 56  # of `engine.graphs.fixed_step`, `engine.kernels.vocabulary`
LEAST_RESERVE = 2**28  # for everything small
USABLE = 0.75  # of the memory beside the weights; the rest is for other programs and for what allocators lose
DRIVER_BYTES = 2**29  # of CUDA's driver and the compiled kernels, once a process uses a GPU
PLAIN_COPIES = 6  # of the logits in float32: two steps', scaled, log-probabilities, probabilities, one with the bias


@dataclass(frozen=True)
class StepSizes:
    """Canvases stepped together: how many, and the largest of their widths, holes and prompts. bias: rows of its values
    per canvas."""

    batch: int
    width: int
    holes: int
    prompt: int
    bias: int = 1


def key_bytes(config: Shape, positions: int, element: int) -> int:
    """Of the keys and values of `positions` tokens in numbers of `element` bytes."""
    return sum(2 * layer.num_kv_heads * layer.head_dim for layer in config.layers) * positions * element


def visible_key_bytes(config: Shape, prompt: int, width: int, element: int) -> int:
    """Of those that a canvas sees: sliding layers see less than a window of the prompt."""
    total = 0
    for layer in config.layers:
        seen = min(prompt, config.sliding_window - 1) if layer.is_sliding else prompt
        total += 2 * layer.num_kv_heads * layer.head_dim * (seen + width)
    return total * element


def pass_bytes(config: ModelConfig, tokens: int, element: int) -> int:
    """The activations of one layer: residual streams, projected heads, dense feed-forward and experts."""
    heads = max(config.num_heads * layer.head_dim for layer in config.layers)
    experts = config.experts_per_token * (config.hidden_size + config.expert_intermediate_size)
    return tokens * (14 * config.hidden_size + 3 * heads + 3 * config.intermediate_size + experts) * element


def step_bytes(config: ModelConfig, sizes: StepSizes, element: int, kv_element: int, recorded: bool) -> int:
    """Of one step. element, kv_element: bytes of a weight, and of a key. recorded: whether it is a `FixedStep` with
    kernels, which keeps copies of the keys, and the logits and probabilities once."""
    rows, vocab, hidden = sizes.batch * sizes.holes, config.vocab_size, config.hidden_size
    keys = sizes.batch * visible_key_bytes(config, sizes.prompt, sizes.width, kv_element)
    activations = pass_bytes(config, sizes.batch * sizes.width, element)
    if not recorded:
        beliefs = 3 * sizes.batch * sizes.width * hidden * element
        copied = keys if sizes.batch > 1 else 0
        return copied + PLAIN_COPIES * rows * vocab * 4 + rows * vocab * element + beliefs + activations
    state = (sizes.batch * (sizes.width + 1) + 2 * rows) * hidden * element + rows * (STEPS_AHEAD * 12 + 64)
    bias = sizes.batch * sizes.bias * vocab * element
    logits = rows * -(-vocab // VOCAB_BLOCK) * BYTES_PER_BLOCK + 2 * rows * vocab * element
    return keys + state + bias + logits + activations


def batch_limit(free: int, kept: int, least: int) -> int:
    """Bytes that a step of several canvases may take of the `free` ones. kept: for prompts. least: of one canvas."""
    return max(least, int(USABLE * free) - kept)


def reserved_bytes(config: ModelConfig, element: int, kv_element: int, recorded: bool) -> int:
    """What must be free beside the weights: the keys of CONTEXT tokens, and the largest pass over one canvas, one part
    of a prompt, or one token tree."""
    context = min(CONTEXT, config.max_positions)
    prompt = RECORDED_PROMPT if recorded else context
    sizes = StepSizes(1, config.canvas_length, min(HOLES, config.canvas_length), prompt, bias=2)
    most = max(
        step_bytes(config, sizes, element, kv_element, recorded),
        pass_bytes(config, CHUNK, element),
        pass_bytes(config, NODES, element) + 2 * NODES * config.vocab_size * 4,
    )
    return max(LEAST_RESERVE, key_bytes(config, context, kv_element) + most)

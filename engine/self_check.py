"""Compares the kernels with plain PyTorch on a GPU, with small inputs, before anything relies on them.

An old driver, a missing compiler or a wrong result is found here, not during a request. The references call no kernel:
those of single kernels are written out here, and the plain model runs while the kernels are paused. Must not know who
acts on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from engine.errors import describe_error
from engine.kernels import paused
from engine.key_values import CanvasMemory, KeyValues, PromptMemory
from engine.logit_bias import LogitBias
from engine.models.text_model import TextModel
from engine.ops import vocabulary as plain_vocabulary
from engine.ops.experts import experts, gated_gelu, route
from engine.quantized import FORMATS, QuantizedWeight, plain, quantize_weight

if TYPE_CHECKING:
    from engine.logit_stats import LogitStats
    from engine.models.fused import FusedModel

Pair = tuple[Tensor, Tensor]  # what a kernel computes, and what it should

TOLERANCE = 2e-2  # bfloat16 sums of a few hundred products
MODEL_TOLERANCE = 0.3  # on the last hidden states: thirty layers of bfloat16, a token routed to another expert
COMPARED, WIDEST = 16, 256  # columns of the canvases that a whole model is run with
PRODUCT_TOKENS = (1, 64, 256)  # one for each tiling of `engine.kernels.linear`
PRODUCT_ROWS = 64  # of each weight are compared; all are multiplied
EPS = 1e-6
SAMPLED_ROWS, SHARE_ERROR = 256, 0.1  # rows that sample one of two tokens, and the allowed error of their shares


def kernel_failure(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> str | None:
    """What is wrong with the kernels on `device`, as a clause; None if nothing is. dtype: of the activations."""
    try:
        with torch.inference_mode(), paused():
            wrong = [name for name, *pair in _compared(device, dtype) if not _near(*cast(Pair, pair))]
    except Exception as error:  # compilers and drivers raise types of their own; plain PyTorch works in any case
        return describe_error(error)
    return f"wrong results of {', '.join(dict.fromkeys(wrong))}" if wrong else None


def model_failure(fused: TextModel, plain: TextModel) -> str | None:
    """What is wrong with a fused model compared with the plain one, as a clause; None if nothing is.

    The widest canvas is run but not compared, to compile the kernels for it. Raises what a compiler raises.
    """
    found = _hidden(fused, COMPARED)
    with paused():
        expected = _hidden(plain, COMPARED)
        if not bool(expected.isfinite().all()):
            return None  # the weights are broken, which the first request reports
        if not _near(found, expected, MODEL_TOLERANCE):
            return "its results are wrong"
        if not all(_near(*pair) for pair in _head_pairs(fused, plain, expected[0])):
            return "its results over the vocabulary are wrong"
    return None if bool(_hidden(fused, WIDEST).isfinite().all()) else "a wide canvas produces NaN or infinity"


def product_failure(weights: Iterable[QuantizedWeight], dtype: torch.dtype) -> str | None:
    """What is wrong with the kernel's products with int4 `weights` [rows, columns], as a clause; None if nothing is.

    dtype: of the activations. Raises what a compiler raises.
    """
    from engine.kernels.linear import quantized_linear  # imports Triton, which may not be installed

    generator = torch.Generator().manual_seed(0)
    for weight in weights:
        assert weight.group_scales is not None
        few = replace(weight, numbers=weight.numbers[:PRODUCT_ROWS], group_scales=weight.group_scales[:PRODUCT_ROWS])
        expected_weight = few.dequantize()
        for tokens in PRODUCT_TOKENS:
            x = torch.randn(tokens, weight.columns, generator=generator).to(weight.numbers.device, dtype)
            found, expected = quantized_linear(x, weight)[:, :PRODUCT_ROWS], x.float() @ expected_weight.T
            if bool(expected.isfinite().all()) and not _near(found, expected):
                return f"a product of {tokens} tokens with a weight of {weight.rows} by {weight.columns} is wrong"
    return None


def _hidden(model: TextModel, width: int) -> torch.Tensor:
    """Hidden states of a canvas of random tokens after a prompt of one token."""
    weight = model.embed_tokens.weight
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, len(weight), (1, 1 + width), generator=generator).to(weight.device)
    kv = KeyValues(model.config, weight.device, weight.dtype)
    prompt = PromptMemory(kv, 1)
    model.encode(tokens[:, :1], prompt.positions(), prompt.masks(), prompt)
    prompt.commit()
    canvas = CanvasMemory(kv, width)
    belief = model.embed(tokens[:, 1:])
    return model.denoise(tokens[:, 1:], belief, canvas.positions(), canvas.masks(), canvas)


def _head_pairs(fused: TextModel, plain: TextModel, hidden: Tensor) -> Iterator[Pair]:
    """The statistics of the logits of `hidden` [rows, hidden], and the mean embedding of its likeliest tokens."""
    if not fused.has_kernels:
        return
    model, top = cast("FusedModel", fused), min(4, fused.config.vocab_size)
    temperature = torch.full((len(hidden),), 0.6, device=hidden.device)
    found = model.logit_stats(hidden, temperature, top)
    stats, belief = model.stats_and_mean(hidden, temperature, torch.zeros_like(temperature, dtype=torch.int32))
    expected = plain_vocabulary.logit_stats(plain.logits(hidden), temperature, top)
    yield found.entropy, expected.entropy
    yield found.top_probabilities, expected.top_probabilities
    yield stats.entropy, expected.entropy
    yield belief, plain.embed_mean((plain.logits(hidden) / 0.6).softmax(-1))
    mean = plain_vocabulary.mean_of_rows(plain.embed_tokens.weight, expected.top_tokens, expected.top_probabilities)
    yield model.embed_few(expected.top_tokens.int(), expected.top_probabilities), mean * plain.embed_scale


def _compared(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Every kernel at least once: its name for the user, a result, and the expected one."""
    random = _Random(device, dtype)
    for name, pairs in (
        ("attention", _attention(random)),
        ("norms", _norms(random)),
        ("rotated heads", _heads(random)),
        ("routing", _routing(random)),
        ("the mixture of experts", _mixture(random)),
        ("the vocabulary", _vocabulary(random)),
        ("samples", _samples(device)),
    ):
        for pair in pairs:
            yield name, *pair
    for kind in FORMATS:
        for splits in (1, 2):
            yield f"{kind} products", *_product(random, kind, splits)


class _Random:
    """Normal numbers, the same on every device."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self.device, dtype or self.dtype)


def _product(random: _Random, kind: str, splits: int) -> Pair:
    from engine.kernels.linear import quantized_linear  # imports Triton, as the kernels below

    weight, x = random(192, 256, dtype=torch.float32), random(20, 256)
    quantized = quantize_weight(weight.to(random.dtype) if kind == "plain" else weight, kind)  # type: ignore[arg-type]
    found = quantized_linear(x, quantized, splits=splits)
    return found if splits == 1 else found.sum(dim=0), x.float() @ quantized.dequantize().T


def _attention(random: _Random) -> Iterator[Pair]:
    """Alone, with masked keys, and with the keys split among programs."""
    from engine.kernels.attention import attend

    query, key, value = random(2, 4, 20, 64), random(2, 2, 70, 64), random(2, 2, 70, 64)
    mask = (torch.arange(70) >= torch.tensor([[0], [33]]))[:, None, None].to(random.device)
    scores = torch.einsum("bhqd,bhkd->bhqk", query.float() / 8, key.float().repeat_interleave(2, dim=1))
    for seen, splits in ((None, 1), (mask, 1), (mask, 2)):
        shares = (scores if seen is None else scores.masked_fill(~seen, -torch.inf)).softmax(-1)
        mean = shares @ value.float().repeat_interleave(2, dim=1)
        yield attend(query / 8, key, value, seen, splits=splits), mean.transpose(1, 2).flatten(2)


def _unit(x: Tensor) -> Tensor:
    return x.float() * (x.float().square().mean(dim=-1, keepdim=True) + EPS).rsqrt()


def _norms(random: _Random) -> Iterator[Pair]:
    from engine.kernels.norms import add_normed, gated, join_branches

    residual, product, dense, slots = random(3, 96), random(3, 96), random(2, 3, 96), random(3, 2, 96)
    a, b, c, d = (random(96) for _ in range(4))
    summed, scaled = add_normed(residual, product, a, EPS, [b, c, d])
    expected = residual.float() + _unit(product) * a
    yield summed, expected
    for found, gain in zip(scaled, (b, c, d), strict=True):
        yield found, _unit(expected) * gain
    scalar = torch.full((1,), 0.7, device=random.device)
    joined, normed = join_branches(residual, dense, slots, (a, b, c), scalar, EPS, d)
    both = _unit(_unit(dense.float().sum(dim=0)) * a + _unit(slots.float().sum(dim=1)) * b) * c
    expected = (residual + both) * 0.7
    yield joined, expected
    yield normed, _unit(expected) * d
    yield gated(product), gated_gelu(product.float())


def _heads(random: _Random) -> Iterator[Pair]:
    from engine.kernels.norms import split_heads

    projected, angles = random(1, 5, 8, 32), random(1, 5, 16, dtype=torch.float32)
    q_gain, k_gain = random(32), random(32)
    key, value = torch.empty(2, 1, 2, 5, 32, device=random.device, dtype=random.dtype)
    query = split_heads(projected, (angles.cos(), angles.sin()), q_gain, k_gain, EPS, key, value, 4)

    def rotated(heads: Tensor, gain: Tensor) -> Tensor:
        first, second = (_unit(heads) * gain).transpose(1, 2).chunk(2, dim=-1)
        c, s = angles.cos()[:, None], angles.sin()[:, None]
        return torch.cat((first * c - second * s, second * c + first * s), dim=-1)

    yield query, rotated(projected[:, :, :4], q_gain)
    yield key, rotated(projected[:, :, 4:6], k_gain)
    yield value, _unit(projected[:, :, 6:]).transpose(1, 2)


def _routing(random: _Random) -> Iterator[Pair]:
    """The chosen experts, and which slots the programs of a grouped product take."""
    from engine.kernels.routing import choose, schedule

    scores, scale = random(40, 8, dtype=torch.float32), random(8, dtype=torch.float32).abs() + 0.5
    weights, indices = choose(scores, scale, 2)
    expected_weights, expected_indices = route(scores, scale, 2)
    yield weights, expected_weights
    yield indices, expected_indices
    plan = schedule(expected_indices.int(), 8, 16)
    slot_experts = torch.full((80,), -1)
    for expert, first, end in plan.blocks.tolist():
        if expert >= 0:
            slot_experts[plan.order[first:end].long().cpu()] = expert
    yield slot_experts.to(random.device), expected_indices.flatten()


def _mixture(random: _Random) -> Iterator[Pair]:
    from engine.kernels.mixture import mixture

    x, gate_up, down = random(40, 64), random(8, 64, 64) / 8, random(8, 64, 32) / 6
    weights, indices = route(random(40, 8, dtype=torch.float32), torch.ones(8, device=random.device), 2)
    found = mixture(x, weights, indices.int(), plain(gate_up), plain(down))
    yield found, experts(x.float(), weights, indices, gate_up.float(), down.float())


def _vocabulary(random: _Random) -> Iterator[Pair]:
    """With tokens that some rows must not take, from logits and from hidden states; without noise."""
    from engine.kernels.vocabulary import mean_of_rows, probabilities, stats_from_hidden, stats_from_logits

    hidden, head = random(20, 64), random(300, 64)
    values = torch.zeros(2, 300, device=random.device)
    values[1, :150] = -1e4
    bias = LogitBias(values, (torch.arange(20, device=random.device) % 2).int())
    temperature = torch.full((20,), 0.6, device=random.device)
    logits = (hidden.float() / 8) @ head.float().T
    expected = plain_vocabulary.logit_stats(bias.added(logits), temperature, 4)
    found = stats_from_logits(logits, 0.0, temperature, 4, None, bias)
    yield from _stats_pairs(found, expected)
    yield probabilities(logits, 0.0, temperature, expected, bias), (bias.added(logits) / 0.6).softmax(-1)
    yield from _stats_pairs(
        stats_from_hidden(hidden / 8, plain(head), 0.0, temperature, 4, None, bias),
        plain_vocabulary.logit_stats(bias.added((hidden / 8).float() @ head.float().T), temperature, 4),
    )
    tokens, weights = expected.top_tokens.int(), expected.top_probabilities
    yield mean_of_rows(head, tokens, weights), plain_vocabulary.mean_of_rows(head.float(), tokens, weights)


def _stats_pairs(found: LogitStats, expected: LogitStats) -> Iterator[Pair]:
    yield found.argmax, expected.argmax
    yield found.sample, expected.argmax
    yield found.entropy, expected.entropy
    yield found.log_probability, expected.log_probability
    yield found.top_tokens, expected.top_tokens
    yield found.top_probabilities, expected.top_probabilities


def _samples(device: torch.device) -> Iterator[Pair]:
    """Whether rows with different seeds take each of two tokens about as often as its probability says."""
    from engine.kernels.vocabulary import stats_from_logits

    logits = torch.full((SAMPLED_ROWS, 40), -1e4, device=device)
    logits[:, 7], logits[:, 33] = 1.0, 0.5
    seeds = torch.arange(SAMPLED_ROWS, dtype=torch.int32, device=device)
    temperature = torch.full((SAMPLED_ROWS,), 0.5, device=device)
    sample = stats_from_logits(logits, 0.0, temperature, 1, seeds).sample
    shares = torch.stack([(sample == token).float().mean() for token in (7, 33)])
    expected = torch.softmax(torch.tensor([2.0, 1.0], device=device), dim=0)
    yield ((shares - expected).abs() < SHARE_ERROR).float(), torch.ones(2, device=device)


def _near(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether the difference is small by the norm; integers must be equal."""
    if not found.is_floating_point():
        return torch.equal(found.long(), expected.long())
    return bool((found.float() - expected.float()).norm() <= tolerance * expected.float().norm())

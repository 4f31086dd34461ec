"""One sampling decision compared with a plain reference and with transformers' own classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    EntropyBoundSampler,
    EntropyBoundSamplerConfig,
    LinearTemperatureScheduleLogitsProcessor,
)

from engine.config import NoiseConfig, SamplingConfig
from engine.errors import ModelError
from engine.sampler import RowDraws, _argmax, accept, decide, is_confident

CPU = torch.device("cpu")
VOCAB = 50


def draws(seeds: Sequence[int] = (0,), noise: NoiseConfig | None = None, vocab: int = VOCAB) -> RowDraws:
    own = RowDraws(noise or NoiseConfig(), vocab, CPU)
    for row, seed in enumerate(seeds):
        own.seed(row, seed)
    return own


def all_present(rows: int, holes: int) -> Tensor:
    return torch.ones(rows, holes, dtype=torch.bool)


def plain_accept(entropy: list[float], bound: float) -> set[int]:
    """Accepts in order of entropy while the sum of all but the largest stays within the bound."""
    taken: list[int] = []
    for index in sorted(range(len(entropy)), key=lambda i: entropy[i]):
        chosen = [entropy[i] for i in (*taken, index)]
        if sum(chosen) - max(chosen) > bound:
            break
        taken.append(index)
    return set(taken)


@pytest.mark.parametrize("seed", range(20))
def test_accepted_positions_equal_a_plain_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = [1, 3, 9, 14]
    entropy = torch.rand(4, 14, generator=generator)
    present = torch.arange(14)[None] < torch.tensor(sizes)[:, None]
    entropy[~present] = 0.0
    bounds = torch.tensor([0.1, 0.0, 0.7, 2.5])
    accepted = accept(entropy, present, bounds)
    for row, size in enumerate(sizes):
        expected = plain_accept(entropy[row, :size].tolist(), float(bounds[row]))
        assert set(accepted[row].nonzero().flatten().tolist()) == expected
        assert expected, "the surest position is always accepted"


@pytest.mark.parametrize("bound", [0.05, 1.0, 8.0])
def test_accepted_positions_equal_transformers(bound: float) -> None:
    logits = torch.randn(3, 12, VOCAB, generator=torch.Generator().manual_seed(4)) * 4
    theirs: Any = EntropyBoundSampler(EntropyBoundSamplerConfig(bound), 12, VOCAB, 1)
    theirs.accept_canvas(torch.zeros(3, 12).long(), torch.ones(3, 12).long(), logits, 1)
    config = SamplingConfig(1, bound, 1.0, 1.0)
    mine = decide(logits, all_present(3, 12), [0, 1, 2], [config] * 3, [1] * 3, draws([0, 1, 2]))
    assert torch.equal(mine.accepted, theirs.accepted_token_mask)
    assert mine.accepted.any() and not mine.accepted.all()


def test_every_position_is_accepted_where_all_is_sure() -> None:
    assert accept(torch.zeros(2, 5), all_present(2, 5), torch.zeros(2)).all()


def test_temperature_falls_with_the_steps_that_remain() -> None:
    configs = [
        SamplingConfig(8, 0.1, 0.4, 0.8),
        SamplingConfig(5, 0.1, 0.0, 1.0),
        SamplingConfig(3, 0.1, 0.5, 0.5),
    ]
    logits = torch.randn(3, 4, VOCAB, generator=torch.Generator().manual_seed(1))
    for remaining in ([8, 5, 3], [3, 2, 2], [1, 1, 1]):
        mine = decide(logits, all_present(3, 4), [0, 1, 2], configs, remaining, draws([0, 1, 2]))
        for row, (config, left) in enumerate(zip(configs, remaining, strict=True)):
            schedule: Any = LinearTemperatureScheduleLogitsProcessor(config.t_min, config.t_max, config.max_steps)
            processed = schedule(torch.empty(0), logits[row], left)
            torch.testing.assert_close(mine.probabilities[row], processed.softmax(-1))
            expected = torch.distributions.Categorical(logits=processed).entropy()
            torch.testing.assert_close(mine.entropy[row], expected)


def test_accepted_positions_hold_a_choice_and_the_others_noise() -> None:
    logits = torch.full((1, 6, VOCAB), 0.0)
    logits[0, :3, 7] = 60.0
    mask = NoiseConfig("mask", mask_token_id=4)
    decision = decide(logits, all_present(1, 6), [0], [SamplingConfig(4, 0.1)], [2], draws(noise=mask))
    assert decision.accepted.tolist() == [[True] * 3 + [True] + [False] * 2]
    assert decision.tokens[0, [0, 1, 2]].tolist() == [7, 7, 7]
    assert decision.tokens[0, [4, 5]].tolist() == [4, 4]


def test_argmax_takes_the_likeliest_and_sample_draws() -> None:
    logits = torch.zeros(2, 400, 2)
    logits[..., 1] = 1.0
    configs = [SamplingConfig(1, 1e9, 1.0, 1.0, token_choice=choice) for choice in ("argmax", "sample")]
    decision = decide(logits, all_present(2, 400), [0, 1], configs, [1, 1], draws([0, 1], vocab=2))
    assert decision.tokens[0].eq(1).all()
    assert 0.2 < decision.tokens[1].eq(0).float().mean() < 0.34, "1 / (1 + e) is 0.27"
    assert decision.argmax.eq(1).all()


def test_of_equally_likely_tokens_the_first_is_taken() -> None:
    x = torch.randint(0, 6, (3, 4, 50), generator=torch.Generator().manual_seed(0)).float()
    found = _argmax(x)
    assert torch.equal(x.gather(-1, found[..., None]).squeeze(-1), x.amax(dim=-1))
    assert torch.equal(found, (x == x.amax(dim=-1, keepdim=True)).int().cummax(dim=-1).values.eq(0).sum(dim=-1))


def test_a_row_of_argmax_draws_nothing_that_it_would_not_draw_alone() -> None:
    logits = torch.randn(2, 9, VOCAB, generator=torch.Generator().manual_seed(2))
    configs = [SamplingConfig(4, 0.1, token_choice="argmax"), SamplingConfig(4, 0.1, token_choice="sample")]
    together = decide(logits, all_present(2, 9), [0, 1], configs, [4, 4], draws([5, 6]))
    for row in (0, 1):
        alone = decide(logits[[row]], all_present(1, 9), [row], [configs[row]], [4], draws([5, 6]))
        assert torch.equal(alone.tokens[0], together.tokens[row])


def test_choices_come_as_often_as_their_probability() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.05, 0.25, 0.0])
    chosen = draws(vocab=7).choose([0], probabilities.expand(1, 40_000, 7), all_present(1, 40_000))
    shares = torch.bincount(chosen[0], minlength=7) / 40_000
    torch.testing.assert_close(shares, probabilities, atol=0.01, rtol=0)
    assert shares[[0, 2, 6]].eq(0).all()


@pytest.mark.parametrize("draw", [0.0, 1.0 - 2.0**-24])
def test_the_extreme_draws_choose_nothing_impossible(monkeypatch: pytest.MonkeyPatch, draw: float) -> None:
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.full((count,), draw))
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 2000, VOCAB, generator=generator)
    logits[..., 0] = logits[..., -1] = -1e4
    chosen = draws().choose([0], logits.softmax(-1), all_present(1, 2000))
    assert 1 <= int(chosen.min()) and int(chosen.max()) <= VOCAB - 2


def test_a_row_draws_the_same_alone_and_beside_wider_rows() -> None:
    present = torch.tensor([[True] * 3 + [False] * 5, [True] * 8])
    probabilities = torch.rand(2, 8, VOCAB, generator=torch.Generator().manual_seed(0))
    both, alone = draws([1, 2]), draws([1, 2])
    for _ in range(3):
        noise, chosen = both.noise([0, 1], present), both.choose([0, 1], probabilities, present)
        assert torch.equal(alone.noise([0], present[:1, :3])[0], noise[0, :3])
        assert torch.equal(alone.choose([0], probabilities[:1, :3], present[:1, :3])[0], chosen[0, :3])


def test_uniform_noise_covers_the_vocabulary() -> None:
    noise = draws().noise([0], all_present(1, 50_000))
    shares = torch.bincount(noise[0], minlength=VOCAB) / 50_000
    assert noise.max() < VOCAB
    torch.testing.assert_close(shares, torch.full((VOCAB,), 1 / VOCAB), atol=0.004, rtol=0)


def test_mask_noise_is_the_mask_token() -> None:
    noise = draws(noise=NoiseConfig("mask", mask_token_id=4)).noise([0], all_present(1, 500))
    assert noise.eq(4).all()


def test_hybrid_noise_is_mostly_the_mask_token() -> None:
    config = NoiseConfig("hybrid", mask_token_id=4, uniform_share=0.25)
    noise = draws(noise=config).noise([0], all_present(1, 50_000))[0]
    masked = noise.eq(4).float().mean()
    assert abs(float(masked) - (0.75 + 0.25 / VOCAB)) < 0.01
    shares = torch.bincount(noise[noise != 4], minlength=VOCAB) / int((noise != 4).sum())
    assert shares[4] == 0 and shares[:4].gt(0.012).all() and shares[5:].gt(0.012).all()


def test_noise_never_falls_on_absent_positions() -> None:
    present = torch.tensor([[True, True, False]])
    for config in (NoiseConfig(), NoiseConfig("mask", 4), NoiseConfig("hybrid", 4)):
        assert draws(noise=config).noise([0], present)[0, 2] == 0


def test_confidence_is_the_sum_over_present_positions() -> None:
    entropy = torch.tensor([[0.2, 0.4, 9.0], [0.2, 0.4, 0.0]])
    present = torch.tensor([[True, True, False], [True, True, True]])
    assert is_confident(entropy, present, torch.tensor([0.61, 0.59])).tolist() == [True, False]
    assert is_confident(entropy, present, torch.tensor([0.59, 0.61])).tolist() == [False, True]


@pytest.mark.parametrize(
    "noise, problem",
    [
        ({"kind": "salt"}, "'salt'"),
        ({"kind": "mask"}, "mask_token_id"),
        ({"kind": "hybrid"}, "mask_token_id"),
    ],
)
def test_noise_that_cannot_be_made_is_refused(noise: dict[str, str], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        NoiseConfig(**noise)  # type: ignore[arg-type]


def test_an_unknown_token_choice_is_refused() -> None:
    with pytest.raises(ModelError, match="'greedy'"):
        SamplingConfig(token_choice="greedy")  # type: ignore[arg-type]

"""Slips in canvases: what they change, what they keep, and the targets of the loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from engine.config import NoiseConfig
from train.data import diffusion_batch
from train.layout import MASK, FileTokens, LayoutConfig, diffusion_rows
from train.objective import add_noise
from train.slips import MAX_SLIPS, Slips

POCKET = Path(__file__).parents[2] / "infill" / "models" / "pocket" / "tokenizer.json"
CODE = """\

def total_of(self, order, tax=None):
    if tax == 0 and order.count < 1:
        amount = self.price_of(order)
        return amount + tax
    for line in order.lines:
        self.seen[line] = tax
"""
CONFIG = LayoutConfig(prompt=64, canvas=96, far_suffix=16, header=8, supervised=48, slip_share=1.0, canvases=2)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(POCKET))


@pytest.fixture(scope="module")
def slips(tokenizer: Tokenizer) -> Slips:
    return Slips(tokenizer)


@pytest.fixture(scope="module")
def tokens(tokenizer: Tokenizer) -> np.ndarray:
    return np.array(tokenizer.encode(CODE).ids)


def test_names_are_whole_and_not_keywords(slips: Slips, tokens: np.ndarray, tokenizer: Tokenizer) -> None:
    names = [tokenizer.decode(tokens[a:b].tolist()).strip() for a, b in slips.names(tokens)]
    expected = "total_of order tax tax order count amount price_of order amount tax line order lines seen line tax"
    assert names == expected.split()


def test_a_slip_is_another_name_or_a_similar_operator(slips: Slips, tokens: np.ndarray, tokenizer: Tokenizer) -> None:
    names = {tokenizer.decode(tokens[a:b].tolist()).strip() for a, b in slips.names(tokens)}
    rng, changed, operators = np.random.default_rng(0), 0, 0
    for _ in range(300):
        shown = slips.slipped(tokens, rng)
        assert len(shown) == len(tokens)
        differing = np.flatnonzero(shown != tokens)
        changed += len(differing) > 0
        for at in differing.tolist():
            if tokens[at] in slips.similar:
                operators += 1
                assert shown[at] in slips.similar[int(tokens[at])]
        after = [tokenizer.decode(shown[a:b].tolist()).strip() for a, b in slips.names(shown)]
        assert set(after) <= names
        before = [tokenizer.decode(tokens[a:b].tolist()).strip() for a, b in slips.names(tokens)]
        assert sum(a != b for a, b in zip(before, after, strict=True)) <= MAX_SLIPS
    assert changed > 150 and operators > 20


def test_text_without_names_or_operators_does_not_change(slips: Slips, tokenizer: Tokenizer) -> None:
    plain = np.array(tokenizer.encode("( ) , [ ]").ids)
    rng = np.random.default_rng(0)
    assert all((slips.slipped(plain, rng) == plain).all() for _ in range(50))


def test_a_canvas_with_slips_has_no_other_noise_and_the_original_as_target(slips: Slips, tokens: np.ndarray) -> None:
    file = FileTokens(np.tile(tokens, 3), np.arange(0), np.empty((0, 3), dtype=np.int64), 17)
    rng = np.random.default_rng(0)
    batch = diffusion_batch(
        [row for _ in range(20) for row in diffusion_rows(file, CONFIG, rng, slips)],
        CONFIG,
    )
    noise = NoiseConfig("hybrid", MASK, 0.1)
    noisy, noised = add_noise(batch, noise, 8192, torch.Generator().manual_seed(0))
    slipped = batch.shown != batch.canvas
    rows = slipped.any(dim=1)
    assert rows.sum() > 10
    assert torch.equal(noisy[rows], batch.shown[rows]) and torch.equal(noised[rows], slipped[rows])
    targeted = torch.zeros_like(slipped).scatter(1, batch.targets, batch.weight > 0)
    assert bool((targeted | ~slipped).all())
    assert bool((targeted & ~slipped)[rows].any(dim=1).all())


def test_a_share_of_zero_makes_no_slips(slips: Slips, tokens: np.ndarray) -> None:
    file = FileTokens(np.tile(tokens, 3), np.arange(0), np.empty((0, 3), dtype=np.int64), 17)
    config, rng = replace(CONFIG, slip_share=0.0), np.random.default_rng(0)
    rows = [row for _ in range(40) for row in diffusion_rows(file, config, rng, slips)]
    assert all((row.shown == row.canvas).all() for row in rows)

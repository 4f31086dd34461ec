"""Windows, noise and the loss of the head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.config import NoiseConfig
from tests.train.windows import NEWLINE, PYTHON, SMALL, batch_of, source
from train.data import diffusion_batch
from train.head_loss import head_loss
from train.layout import (
    BOS,
    MASK,
    NULL,
    PREFIX,
    SUFFIX,
    FileTokens,
    causal_row,
    choose_hole,
    diffusion_rows,
    slots_for,
)
from train.objective import add_noise

# layout


def test_a_window_is_prompt_and_canvas_without_a_gap() -> None:
    file, rng = source(), np.random.default_rng(0)
    joined = " ".join(map(str, file.tokens.tolist())) + " "
    for _ in range(60):
        row = diffusion_rows(file, SMALL, rng)[0]
        assert row.prompt[:3].tolist() == [BOS, PYTHON, SUFFIX]
        assert len(row.prompt) <= SMALL.prompt and len(row.canvas) <= SMALL.canvas
        marks = np.flatnonzero(row.prompt == PREFIX)
        assert len(marks) == 1
        far_suffix, far_prefix = row.prompt[3 : marks[0]], row.prompt[marks[0] + 1 :]
        canvas = row.canvas[row.canvas != NULL]
        near = far_prefix[-4:]
        run = [*near.tolist(), *canvas.tolist(), *far_suffix.tolist()]
        assert " ".join(map(str, run)) + " " in joined


def test_empty_slots_follow_their_hole_and_only_holes_have_a_loss() -> None:
    file, rng = source(), np.random.default_rng(1)
    whole = 0
    for _ in range(80):
        row = diffusion_rows(file, SMALL, rng)[0]
        assert row.hole.shape == row.weight.shape == row.canvas.shape
        assert (row.weight[~row.hole] == 0).all() and row.weight.max() == 1.0
        if row.hole.all():
            whole += 1
            assert row.weight.sum() == min(SMALL.supervised, len(row.canvas))
            continue
        assert row.hole.sum() <= SMALL.supervised
        nulls = np.flatnonzero(row.canvas == NULL)
        assert row.hole[nulls].all()
        for column in nulls:
            first = column == 0 or row.canvas[column - 1] != NULL
            assert row.weight[column] == pytest.approx(1.0 if first else 0.2)
            assert column == 0 or row.hole[column - 1]
        assert (row.weight[row.hole & (row.canvas != NULL)] == 1).all()
    assert 0 < whole < 20


def test_each_kind_of_hole_is_where_its_name_says() -> None:
    file, rng = source(), np.random.default_rng(2)
    spans = {tuple(span) for span in file.spans.tolist()}
    for _ in range(50):
        for kind in ("span", "rest_of_line", "line", "statement", "block"):
            found = choose_hole(file, 16, 400, 40, kind, rng)
            assert found is not None
            first, last = found
            assert 16 <= first < last <= 400 and last - first <= 40
            if kind in ("statement", "block"):
                assert (first, last, 2 if kind == "statement" else 3) in spans
            if kind in ("line", "rest_of_line"):
                assert last in file.newlines
                assert (first in file.newlines) == (kind == "line")
                assert kind == "line" or last - first < 8
    assert choose_hole(file, 16, 19, 40, "span", rng) is None
    assert choose_hole(file, 17, 23, 40, "line", rng) is None


def test_slots_are_enough_for_the_hole() -> None:
    rng = np.random.default_rng(3)
    for length in (1, 7, 8, 30, 64, 90):
        slots = [slots_for(length, SMALL, rng) for _ in range(50)]
        assert min(slots) == length and all(size >= length for size in slots)
        assert length > 64 or length in (64,) or len(set(slots)) > 1


def test_files_of_a_few_tokens_make_windows() -> None:
    rng = np.random.default_rng(4)
    for count in (1, 2, 5, 12):
        file = source(lines=2)
        short = FileTokens(file.tokens[:count], file.newlines[file.newlines < count], file.spans[:0], PYTHON)
        for _ in range(20):
            row = diffusion_rows(short, SMALL, rng)[0]
            assert 1 <= len(row.canvas) <= SMALL.canvas
            tokens, weight = causal_row(short, replace(SMALL, prompt=32), rng)
            assert len(tokens) == len(weight) <= 64


def test_causal_windows_have_both_orders_and_markers_are_not_targets() -> None:
    file, rng = source(), np.random.default_rng(5)
    middles = 0
    for _ in range(40):
        tokens, weight = causal_row(file, replace(SMALL, prompt=96), rng)
        assert len(tokens) == 128 and tokens[0] == BOS
        assert ((weight == 0) == (tokens < 32)).all()
        middles += tokens[3] != PREFIX
    assert 8 < middles < 32


def test_canvases_that_share_a_prompt_reveal_no_hole_of_each_other() -> None:
    file, rng = source(), np.random.default_rng(6)
    config = replace(SMALL, canvases=3, canvas_prompt=40)
    differing = 0
    for _ in range(40):
        rows = diffusion_rows(file, config, rng)
        assert len(rows) == 3 and all(row.prompt is rows[0].prompt for row in rows)
        assert len(rows[0].prompt) <= 40
        texts = [row.canvas[row.canvas != NULL] for row in rows]
        shortest = min(len(text) for text in texts)
        assert all(np.array_equal(text[:shortest], texts[0][:shortest]) for text in texts)
        mark = int(np.flatnonzero(rows[0].prompt == PREFIX)[0])
        far_suffix = rows[0].prompt[3:mark].tolist()
        assert len(far_suffix) == 0 or far_suffix[0] not in np.concatenate(texts) or far_suffix[0] == NEWLINE
        differing += not np.array_equal(rows[0].hole, rows[1].hole)
    assert differing > 30
    batch = diffusion_batch([*diffusion_rows(file, config, rng), *diffusion_rows(file, config, rng)], config)
    assert batch.prompt.shape == (2, 40) and batch.canvas.shape == (6, 32) and batch.canvases == 3
    lengths = batch.prompt_length.tolist()
    assert batch.prompt_length_by_row.tolist() == [length for length in lengths for _ in range(3)]


def test_the_lines_of_a_neighbour_come_before_the_prefix() -> None:
    rng = np.random.default_rng(7)
    lines = np.array([NEWLINE, 901, 902, 903], dtype=np.int64)
    file = replace(source(), neighbour=lines)
    for _ in range(20):
        tokens, _ = causal_row(file, SMALL, rng)
        mark = int(np.flatnonzero(tokens == PREFIX)[0])
        assert len(tokens) == 80 and tokens[mark + 1 : mark + 5].tolist() == lines.tolist()
        prompt = diffusion_rows(file, SMALL, rng)[0].prompt
        prefix = prompt[int(np.flatnonzero(prompt == PREFIX)[0]) + 1 :]
        assert len(prefix) < 8 or prefix[:4].tolist() == lines.tolist()


# noise


def test_targets_are_the_columns_with_a_loss() -> None:
    rng = np.random.default_rng(0)
    rows = [diffusion_rows(source(), SMALL, rng)[0] for _ in range(8)]
    batch = diffusion_batch(rows, SMALL)
    for index, row in enumerate(rows):
        columns = np.flatnonzero(row.weight > 0)
        assert batch.targets[index, : len(columns)].tolist() == columns.tolist()
        assert batch.weight[index].sum() == pytest.approx(row.weight.sum())
        assert batch.canvas[index, : len(row.canvas)].tolist() == row.canvas.tolist()
        assert batch.prompt_length[index] == len(row.prompt) and batch.canvas_length[index] == len(row.canvas)


@pytest.mark.parametrize("kind", ["uniform", "mask", "hybrid"])
def test_noise_is_in_holes_only(kind: Any) -> None:
    noise = NoiseConfig(kind, None if kind == "uniform" else MASK, 0.1)
    levels = []
    for seed in range(30):
        batch = batch_of(seed=seed)
        noisy, noised = add_noise(batch, noise, 8192, torch.Generator().manual_seed(seed))
        assert not (noised & ~batch.hole).any()
        assert torch.equal(noisy[~noised], batch.canvas[~noised])
        partial = ~batch.hole.all(dim=1)
        if kind == "mask":
            assert (noisy[noised & partial[:, None]] == MASK).all()
        levels += [
            float(noised[row].sum() / batch.hole[row].sum()) for row in torch.nonzero(partial).flatten().tolist()
        ]
    assert sum(level == 1 for level in levels) / len(levels) > 0.25 and min(levels) < 0.3


def test_a_canvas_that_is_one_hole_gets_light_uniform_noise() -> None:
    config = replace(SMALL, whole_canvas_share=1.0)
    rng = np.random.default_rng(0)
    batch = diffusion_batch([diffusion_rows(source(), config, rng)[0] for _ in range(16)], config)
    noisy, noised = add_noise(batch, NoiseConfig("hybrid", MASK), 8192, torch.Generator().manual_seed(0))
    assert 0 < noised.float().mean() < 0.16
    assert (noisy[noised] == MASK).float().mean() < 0.05


# losses


@pytest.mark.parametrize("weighted", [True, False])
def test_the_head_loss_is_plain_cross_entropy_with_its_gradients(weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 101, 12, generator=generator).requires_grad_()
    table = torch.randn(70, 12, generator=generator).requires_grad_()
    targets = torch.randint(70, (3, 101), generator=generator)
    weight = torch.rand(3, 101, generator=generator) if weighted else torch.ones(3, 101)
    loss = head_loss(hidden, table, targets, weight, 5.0, torch.float32)
    (3 * loss).backward()
    assert hidden.grad is not None and table.grad is not None
    gradients = hidden.grad.clone(), table.grad.clone()
    hidden.grad = table.grad = None
    logits = 5.0 * torch.tanh(hidden @ table.T / 5.0)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    plain = (losses * weight.flatten()).sum() / weight.sum()
    (3 * plain).backward()
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(gradients[0], hidden.grad, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(gradients[1], table.grad, atol=1e-6, rtol=1e-4)


def test_chunks_cover_any_number_of_tokens() -> None:
    table = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    for count in (1, 511, 512, 513, 1025, 1537):
        generator = torch.Generator().manual_seed(count)
        hidden = torch.randn(count, 4, generator=generator).requires_grad_()
        targets = torch.randint(20, (count,), generator=generator)
        loss = head_loss(hidden, table, targets, torch.ones(count), 30.0, torch.float32)
        plain = F.cross_entropy(30.0 * torch.tanh(hidden @ table.T / 30.0), targets)
        torch.testing.assert_close(loss, plain)
        torch.testing.assert_close(torch.autograd.grad(loss, hidden), torch.autograd.grad(plain, hidden))
        with torch.no_grad():
            torch.testing.assert_close(
                head_loss(hidden, table, targets, torch.ones(count), 30.0, torch.float32), plain.detach()
            )


@pytest.mark.slow
def test_the_compiled_head_loss_equals_the_plain_one_at_any_length() -> None:
    table = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.compiler.reset()
    for count in (600, 40, 1100):
        generator = torch.Generator().manual_seed(count)
        hidden = torch.randn(count, 8, generator=generator).requires_grad_()
        targets = torch.randint(64, (count,), generator=generator)
        losses = [
            head_loss(hidden, table, targets, torch.ones(count), 30.0, torch.float32, compiled)
            for compiled in (False, True)
        ]
        torch.testing.assert_close(losses[0], losses[1])
        plain, ours = (torch.autograd.grad(loss, (hidden, table)) for loss in losses)
        torch.testing.assert_close(plain, ours)
    counters = torch._dynamo.utils.counters["stats"]
    assert counters["unique_graphs"] <= 2


def test_without_weights_the_head_loss_is_zero() -> None:
    hidden = torch.randn(4, 8).requires_grad_()
    loss = head_loss(hidden, torch.randn(9, 8), torch.zeros(4, dtype=torch.long), torch.zeros(4), 30.0, torch.float32)
    loss.backward()
    assert loss == 0 and hidden.grad is not None and not hidden.grad.any()

"""A run on a tiny data folder: it learns, stops and goes on; and the recipe it follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from windows import PYTHON, SMALL, batch_of

from engine.config import NoiseConfig
from engine.errors import InputError
from engine.model import DiffusionGemma
from train.data import TokenFiles, in_background, make_causal_batch, make_diffusion_batch
from train.layout import MASK
from train.objective import add_noise, diffusion_loss
from train.prepare import FILE_TYPE, SPAN_TYPE
from train.recipe import Recipe, RunConfig, read_recipe
from train.run import Progress, Trainer, initialise, learning_rate

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "infill" / "models" / "pocket" / "tokenizer.json"
RECIPE = """
[model]
hidden_size = 16
intermediate_size = 24
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 8
full_every = 2
sliding_window = 32
num_experts = 1
top_k_experts = 1
moe_intermediate_size = 8
noise = "hybrid"
uniform_share = 0.1

[layout]
prompt = 48
canvas = 32
far_suffix = 8
header = 8
supervised = 16
max_holes = 2

[run]
rows = 4
causal_share = 0.5
warmup_steps = 4
muon_lr = 0.02
adam_lr = 0.02
"""


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return read_recipe(tmp_path / "tiny.toml", 8192)


def random_model(recipe: Recipe) -> DiffusionGemma:
    model = DiffusionGemma(recipe.model)
    initialise(model, torch.Generator().manual_seed(0))
    return model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """As train.prepare writes it: files of one line over and over, which is soon learned."""
    newline = Tokenizer.from_file(str(TOKENIZER)).token_to_id("Ċ")
    line = [newline, 301, 302, 303, 304, 305]
    files, spans, tokens = [], [], []
    for number in range(6):
        start = len(tokens)
        tokens += line * (40 + number)
        files.append((start, len(tokens), PYTHON, number))
        spans += [(at, at + 6, 2) for at in range(start, len(tokens) - 6, 12)]
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "valid"):
        np.array(tokens, dtype=np.uint16).tofile(folder / f"tokens-{split}.bin")
        np.save(folder / f"files-{split}.npy", np.array(files, dtype=FILE_TYPE))
        np.save(folder / f"spans-{split}.npy", np.array(spans, dtype=SPAN_TYPE))
    return folder


def test_prepared_files_are_read_as_they_were_written(data: Path) -> None:
    files = TokenFiles(data, TOKENIZER, "train")
    file = files.file(2)
    assert len(file.tokens) == 42 * 6 and file.language == PYTHON
    assert file.newlines.tolist() == list(range(0, 42 * 6, 6))
    assert file.spans[0].tolist() == [0, 6, 2] and file.spans[:, 1].max() <= len(file.tokens)
    rng = np.random.default_rng(0)
    lengths = {len(files.random_file(rng).tokens) for _ in range(60)}
    assert lengths == {6 * (40 + number) for number in range(6)}
    tokens, weight = make_causal_batch(files, 3, 80, rng)
    assert tokens.shape == weight.shape == (3, 80)
    assert make_diffusion_batch(files, 3, SMALL, rng).canvas.shape == (3, 32)


def test_data_that_is_absent_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train.prepare"):
        TokenFiles(tmp_path, TOKENIZER, "train")


def test_batches_come_in_order_and_errors_come_through() -> None:
    def make(step: int) -> int:
        if step == 7:
            raise InputError("no more")
        return step

    batches = in_background(make, 4)
    assert [next(batches) for _ in range(3)] == [4, 5, 6]
    with pytest.raises(InputError, match="no more"):
        next(batches)


def train(trainer: Trainer, phase: str, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        step = trainer.progress.step
        loss, _ = trainer.losses(phase, step, trainer.make(phase, step))
        loss.backward()
        trainer.optimizers.step(1.0)
        trainer.progress = replace(trainer.progress, step=step + 1)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("phase", ["causal", "diffusion"])
def test_a_few_steps_reduce_the_loss(recipe: Recipe, data: Path, tmp_path: Path, phase: str) -> None:
    trainer = Trainer(recipe, data, TOKENIZER, tmp_path, compiled=False)
    before = trainer.evaluate(phase, 2)
    train(trainer, phase, 16)
    after = trainer.evaluate(phase, 2)
    assert all(after[name] < 0.85 * before[name] for name in before), (before, after)


def test_a_run_is_resumed_at_its_step_and_goes_on_as_if_it_had_not_stopped(
    recipe: Recipe, data: Path, tmp_path: Path
) -> None:
    stopped = Trainer(recipe, data, TOKENIZER, tmp_path, compiled=False)
    train(stopped, "causal", 3)
    stopped.save()
    expected = train(stopped, "diffusion", 3)
    resumed = Trainer(replace(recipe, run=replace(recipe.run)), data, TOKENIZER, tmp_path, compiled=False)
    resumed.resume()
    assert resumed.progress.step == 3
    assert train(resumed, "diffusion", 3) == pytest.approx(expected, rel=1e-5)


def test_the_loop_trains_both_phases_within_its_time_and_leaves_a_checkpoint(
    recipe: Recipe, data: Path, tmp_path: Path
) -> None:
    trainer = Trainer(recipe, data, TOKENIZER, tmp_path, compiled=False)
    trainer.run(1.0, save_every=0.3)
    progress = trainer.progress
    assert progress.seconds >= 1.0 and progress.tokens == progress.step * 4 * 80
    assert (tmp_path / "checkpoint.pt").is_file() and not (tmp_path / "checkpoint.pt.new").exists()
    again = Trainer(recipe, data, TOKENIZER, tmp_path, compiled=False)
    again.resume()
    assert again.progress == progress
    again.run(1.0)
    assert again.progress == progress
    again.run(progress.seconds + 0.05)
    assert again.progress.step > progress.step


def test_an_interrupted_run_keeps_what_it_learned(
    recipe: Recipe, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(recipe, data, TOKENIZER, tmp_path, compiled=False)
    losses = trainer.losses

    def interrupted(phase: str, step: int, batch: Any) -> Any:
        if step == 2:
            raise KeyboardInterrupt
        return losses(phase, step, batch)

    monkeypatch.setattr(trainer, "losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(60.0)
    again = Trainer(recipe, data, TOKENIZER, tmp_path, compiled=False)
    again.resume()
    assert again.progress.step == 2


def test_validation_uses_files_of_its_own(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    trainer = Trainer(recipe, data, TOKENIZER, tmp_path, compiled=False)
    assert set(trainer.evaluate("diffusion", 1)) == {"valid_hole", "valid_causal"}
    train_batch, valid_batch = trainer.make("causal", 0), trainer.make("causal", 0, split=1)
    assert not torch.equal(train_batch[0], valid_batch[0])


def test_the_rate_warms_up_and_falls_at_the_end() -> None:
    run = RunConfig(warmup_steps=10, decay_share=0.5)
    assert learning_rate(Progress(0), 100, run) == pytest.approx(0.1)
    assert learning_rate(Progress(50, 40.0), 100, run) == 1.0
    assert learning_rate(Progress(50, 75.0), 100, run) == pytest.approx(0.5)
    assert learning_rate(Progress(50, 100.0), 100, run) == pytest.approx(0.05)


# losses


def test_padding_changes_no_loss(recipe: Recipe) -> None:
    model = random_model(recipe)
    batch = batch_of()
    noisy, noised = add_noise(batch, recipe.model.noise, 8192, torch.Generator().manual_seed(0))
    other = replace(batch)
    columns = torch.arange(batch.canvas.shape[1])
    padding = columns[None] >= batch.canvas_length[:, None]
    other.prompt = torch.where(torch.arange(48)[None] >= batch.prompt_length[:, None], 7, batch.prompt)
    before = diffusion_loss(model, batch, noisy, noised, self_condition=True)
    after = diffusion_loss(model, other, torch.where(padding, 99, noisy), noised, self_condition=True)
    torch.testing.assert_close(before[0], after[0])


# recipes


def test_the_recipe_of_the_shipped_model_is_read() -> None:
    recipe = read_recipe(ROOT / "train" / "pocket.toml", 8192)
    assert recipe.model.vocab_size == 8192 and recipe.model.family == "pocket"
    assert recipe.model.noise == NoiseConfig("hybrid", MASK, 0.1)
    assert sum(recipe.layout.kind_shares) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("[run]\nrowz = 4", "rowz"),
        ("[layout]\nwidth = 4", "width"),
        ("[model]\nhiden_size = 4", "hiden_size"),
        ("[other]\nx = 1", "other"),
        ("[run]\nrows = 4", "hidden_size"),
    ],
)
def test_a_recipe_with_a_field_unknown_or_missing_is_refused(tmp_path: Path, line: str, wrong: str) -> None:
    (tmp_path / "recipe.toml").write_text(line)
    with pytest.raises(InputError, match=wrong):
        read_recipe(tmp_path / "recipe.toml", 8192)


def test_a_recipe_that_is_absent_or_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml", 8192)
    (tmp_path / "recipe.toml").write_text("[model")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "recipe.toml", 8192)

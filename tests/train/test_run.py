"""Training on a tiny data folder: learning, stopping, resuming, in one process or several."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from engine.config import NoiseConfig
from engine.errors import InputError
from engine.models.diffusion_gemma import DiffusionGemma
from engine.ops.attention import CAUSAL, causal_mask
from tests.train.small_recipe import MODEL
from tests.train.windows import PYTHON, SMALL, batch_of, source
from train.data import TokenFiles, diffusion_batch, make_causal_batch, make_diffusion_batch
from train.layout import MASK, LayoutConfig, diffusion_rows
from train.objective import EncoderMemory, add_noise, diffusion_loss, encode, encoder_masks
from train.optimizers import initialize
from train.prepare import FILE_TYPE, SPAN_TYPE
from train.recipe import Recipe, RunConfig, read_recipe
from train.run import Budget, PhaseBatches, Progress, Trainer, held_out_layout, kind_of_step, learning_rate, phase_of

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "infill" / "models" / "pocket" / "tokenizer.json"
VOCAB = 1536  # more than the tokens used here
WINDOW = 4 * 80  # positions of a step
RECIPE = f"""
[model]
{MODEL}
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
    return read_recipe(tmp_path / "tiny.toml", VOCAB)


def random_model(recipe: Recipe) -> DiffusionGemma:
    model = DiffusionGemma(recipe.model)
    initialize(model, torch.Generator().manual_seed(0))
    return model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """In the layout of train.prepare: files that repeat one line, which a model learns quickly."""
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


def trainer_for(recipe: Recipe, data: Path, folder: Path) -> Trainer:
    folder.mkdir(exist_ok=True)
    return Trainer(recipe, data, TOKENIZER, folder, compiled=False)


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# data


def test_prepared_files_are_read_as_they_were_written(data: Path) -> None:
    files = TokenFiles(data, TOKENIZER, "train")
    file = files.file(2)
    assert len(file.tokens) == 42 * 6 and file.language == PYTHON
    assert file.newlines.tolist() == list(range(0, 42 * 6, 6))
    assert file.spans[0].tolist() == [0, 6, 2] and file.spans[:, 1].max() <= len(file.tokens)
    rng = np.random.default_rng(0)
    lengths = {len(files.random_file(rng, SMALL).tokens) for _ in range(60)}
    assert lengths == {6 * (40 + number) for number in range(6)}
    tokens, weight = make_causal_batch(files, 3, SMALL, rng)
    assert tokens.shape == weight.shape == (3, 80)
    batch = make_diffusion_batch(files, 3, replace(SMALL, canvases=2, canvas_prompt=40), rng)
    assert batch.prompt.shape == (3, 40) and batch.canvas.shape == (6, 32) and batch.canvases == 2


def test_missing_data_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train.prepare"):
        TokenFiles(tmp_path, TOKENIZER, "train")


def test_the_layout_sets_the_share_of_files_with_a_neighbour(data: Path) -> None:
    """One project of two files that share their rare tokens."""
    about = np.load(data / "files-train.npy")[:2]
    about["project"] = 0
    np.save(data / "files-train.npy", about)
    line = np.tile(np.array([Tokenizer.from_file(str(TOKENIZER)).token_to_id("Ċ"), 5001, 5002, 5003, 5004, 5005]), 81)
    line.astype(np.uint16).tofile(data / "tokens-train.bin")
    files, rng = TokenFiles(data, TOKENIZER, "train"), np.random.default_rng(0)
    for share, low, high in ((0.0, 0, 0), (0.3, 30, 70), (1.0, 150, 200)):
        config = replace(SMALL, neighbour_share=share, header=16)
        found = [files.random_file(rng, config).neighbour for _ in range(200)]
        assert low <= sum(len(lines) > 0 for lines in found) <= high
        assert all(len(lines) <= 16 and lines[0] == line[0] for lines in found if len(lines))


# steps


def train(trainer: Trainer, kind: str, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        step = trainer.progress.step
        loss, _ = trainer.losses(kind, step, getattr(trainer.batches, kind)(step))
        loss.backward()
        trainer.optimizers.step(1.0, [])
        trainer.progress = replace(trainer.progress, step=step + 1)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("kind", "learned"), [("causal", "valid_causal"), ("diffusion", "valid_hole")])
def test_a_few_steps_reduce_the_loss(recipe: Recipe, data: Path, tmp_path: Path, kind: str, learned: str) -> None:
    trainer = trainer_for(recipe, data, tmp_path)
    before = trainer.evaluate(2)
    train(trainer, kind, 16)
    after = trainer.evaluate(2)
    assert after[learned] < 0.85 * before[learned], (before, after)


def test_training_with_several_canvases_per_prompt(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    layout = replace(recipe.layout, canvases=3, canvas_prompt=40)
    losses = train(trainer_for(replace(recipe, layout=layout), data, tmp_path), "diffusion", 12)
    assert losses[-1] < 0.9 * losses[0]


def test_a_resumed_run_continues_as_if_it_had_not_stopped(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    stopped = trainer_for(recipe, data, tmp_path)
    train(stopped, "causal", 3)
    stopped.save()
    expected = train(stopped, "diffusion", 3)
    resumed = trainer_for(recipe, data, tmp_path)
    resumed.resume()
    assert resumed.progress.step == 3
    assert train(resumed, "diffusion", 3) == pytest.approx(expected, rel=1e-5)


def test_a_run_may_be_resumed_with_another_layout_but_not_with_another_model(
    recipe: Recipe, data: Path, tmp_path: Path
) -> None:
    trainer = trainer_for(recipe, data, tmp_path)
    train(trainer, "causal", 2)
    trainer.save()
    layout = replace(recipe.layout, prompt=40, canvas=24, canvases=2, far_suffix=4)
    other = trainer_for(replace(recipe, layout=layout), data, tmp_path)
    other.resume()
    train(other, "diffusion", 1)
    assert other.progress.step == 3
    (tmp_path / "deeper.toml").write_text(RECIPE.replace("num_hidden_layers = 2", "num_hidden_layers = 3"))
    deeper = trainer_for(read_recipe(tmp_path / "deeper.toml", VOCAB), data, tmp_path)
    with pytest.raises(InputError, match="num_hidden_layers"):
        deeper.resume()


def test_a_new_run_may_start_from_the_weights_of_another(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    first = trainer_for(recipe, data, tmp_path / "first")
    train(first, "causal", 3)
    first.save()
    second = trainer_for(recipe, data, tmp_path / "second")
    second.start_from(tmp_path / "first" / "checkpoint.pt")
    assert second.progress == Progress()
    assert second.evaluate(1) == first.evaluate(1)
    assert not any(optimizer.state for optimizer in second.optimizers.optimizers)


def test_held_out_losses_use_their_own_files_and_layout(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    trainer = trainer_for(recipe, data, tmp_path)
    assert set(trainer.evaluate(1)) == {"valid_causal", "valid_hole", "valid_hole_first"}
    assert not torch.equal(trainer.batches.causal(0)[0], trainer.batches.causal(0, 1)[0])
    drawn: list[int] = []
    original = trainer.held_out.files[0].random_file
    trainer.held_out.files[0].random_file = lambda *args: drawn.append(0) or original(*args)  # type: ignore[method-assign]
    trainer.evaluate(1)
    assert not drawn
    other = replace(recipe.layout, far_suffix=0, canvases=2, neighbour_share=0.5, max_holes=5)
    again = trainer_for(replace(recipe, layout=other), data, tmp_path)
    assert again.evaluate(2) == trainer.evaluate(2)


def test_held_out_windows_have_the_default_layout_and_fit_small_prompts() -> None:
    default = LayoutConfig()
    assert held_out_layout(replace(default, prompt=640, far_suffix=1)) == replace(default, prompt=640)
    rng = np.random.default_rng(0)
    for prompt, canvas in ((12, 8), (40, 16), (100, 128), (320, 32)):
        layout = held_out_layout(LayoutConfig(prompt=prompt, canvas=canvas))
        rows = [row for _ in range(40) for row in diffusion_rows(source(), layout, rng)]
        batch = diffusion_batch(rows, layout)
        assert batch.prompt.shape[1] == prompt and batch.canvas.shape[1] == canvas
        assert int(batch.prompt_length.max()) <= prompt


# the loop


def test_the_loop_trains_both_phases_within_its_tokens_and_saves(
    recipe: Recipe, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_for(replace(recipe, run=replace(recipe.run, evaluate_every=0.0)), data, tmp_path)
    assert trainer.run(Budget(tokens=40 * WINDOW), save_every=0.3)
    progress = trainer.progress
    assert progress.step == 40 and progress.tokens == 40 * WINDOW and progress.seconds > 0
    assert (tmp_path / "checkpoint.pt").is_file() and not (tmp_path / "checkpoint.pt.new").exists()
    records = log_of(tmp_path)
    assert [(record["phase"], record["step"]) for record in records] == [
        ("causal", 20),
        ("diffusion", 40),
        ("diffusion", 40),
    ]
    for record in records:
        assert {"valid_causal", "valid_hole", "valid_hole_first"} <= set(record)
    for record in records[:2]:
        assert 0 <= record["waiting"] < 1 and record["share_of_peak"] > 0 and record["norm"] > 0
    again = trainer_for(recipe, data, tmp_path)
    again.resume()
    assert again.progress == progress
    monkeypatch.setattr(again, "evaluate", lambda batches: {})
    assert again.run(Budget(tokens=40 * WINDOW)) and again.progress == progress
    assert again.run(Budget(tokens=41 * WINDOW)) and again.progress.step == 41


def test_the_loop_keeps_to_its_time(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    trainer = trainer_for(recipe, data, tmp_path)
    assert trainer.run(Budget(seconds=0.5))
    assert trainer.progress.seconds >= 0.5 and trainer.progress.tokens == trainer.progress.step * WINDOW


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_stops(
    recipe: Recipe, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    trainer = trainer_for(recipe, data, tmp_path)
    losses, handler = trainer.losses, signal.getsignal(number)

    def interrupted(kind: str, step: int, batch: Any) -> Any:
        if step == 2:
            signal.raise_signal(number)
        return losses(kind, step, batch)

    monkeypatch.setattr(trainer, "losses", interrupted)
    assert not trainer.run(Budget(seconds=600))
    assert signal.getsignal(number) is handler
    assert trainer.progress.step == log_of(tmp_path)[-1]["step"] == 3
    again = trainer_for(recipe, data, tmp_path)
    again.resume()
    assert again.progress.step == 3
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), trainer.model.parameters(), strict=True))


def test_the_rate_warms_up_and_falls_at_the_end() -> None:
    run, budget = RunConfig(warmup_steps=10, decay_share=0.5), Budget(seconds=100)
    assert learning_rate(Progress(0), budget, run) == pytest.approx(0.1)
    assert learning_rate(Progress(50, 40.0), budget, run) == 1.0
    assert learning_rate(Progress(50, 75.0), budget, run) == pytest.approx(0.5)
    assert learning_rate(Progress(50, 100.0), budget, run) == pytest.approx(0.05)
    assert learning_rate(Progress(50, 0.0, 75), Budget(tokens=100), run) == pytest.approx(0.5)


def test_a_budget_ends_with_either_of_its_limits() -> None:
    both = Budget(seconds=100, tokens=1000)
    assert both.share(Progress(1, 20.0, 100)) == pytest.approx(0.2)
    assert both.share(Progress(1, 20.0, 900)) == pytest.approx(0.9)
    assert Budget(tokens=1000).share(Progress(1, 1e9, 500)) == pytest.approx(0.5)


def test_phases_follow_the_share_of_the_budget() -> None:
    budget = Budget(tokens=100)
    for share, phases in ((0.0, "ddd"), (0.5, "cdd"), (1.0, "ccc")):
        run = RunConfig(causal_share=share)
        assert "".join(phase_of(Progress(1, 0.0, at), budget, run)[0] for at in (0, 50, 100)) == phases


@pytest.mark.parametrize("share", [0.0, 0.35, 0.5, 1.0])
def test_causal_steps_are_spread_evenly_over_the_second_phase(share: float) -> None:
    run = RunConfig(mixed_causal=share)
    causal = [kind_of_step("diffusion", step, run) == "causal" for step in range(200)]
    for first in range(0, 180, 7):
        assert sum(causal[first : first + 20]) == pytest.approx(20 * share, abs=1)
    assert all(kind_of_step("causal", step, run) == "causal" for step in range(20))


def test_the_batch_of_a_step_is_of_its_kind(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    make = PhaseBatches(trainer_for(recipe, data, tmp_path).batches, "diffusion", RunConfig(mixed_causal=0.5))
    for step in range(6):
        kind = kind_of_step("diffusion", step, make.run)
        assert isinstance(make(step), tuple) == (kind == "causal")


# two processes


def start_training(
    data: Path, out: Path, millions: float, processes: int, *more: str
) -> subprocess.CompletedProcess[bytes]:
    module = ["-m", "train.run", "--data", data, "--tokenizer", TOKENIZER, "--out", out, "--no-compile"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes] if processes > 1 else []
    command = [sys.executable, *launcher, *module, "--tokens", millions, *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([str(one) for one in command], env=environment, cwd=ROOT, capture_output=True, check=False)


@pytest.mark.slow
def test_two_processes_average_their_gradients_and_stop_at_the_same_step(
    recipe: Recipe, data: Path, tmp_path: Path
) -> None:
    tiny = ("--recipe", str(tmp_path / "tiny.toml"))
    ended = start_training(data, tmp_path / "two", 3 * 2 * WINDOW / 1e6, 2, *tiny)
    assert ended.returncode == 0, ended.stderr
    state = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    assert state["progress"]["step"] == 3 and state["progress"]["tokens"] == 3 * 2 * WINDOW
    assert len(log_of(tmp_path / "two")) == 1

    def alone(ranks: tuple[int, ...]) -> dict[str, torch.Tensor]:
        """The weights of a single process that takes the batches of these ranks."""
        trainer = trainer_for(read_recipe(tmp_path / "tiny.toml", 8192), data, tmp_path / "alone")
        budget = Budget(tokens=3 * 2 * WINDOW)
        for step in range(3):
            progress = Progress(step, 0.0, step * 2 * WINDOW)
            kind = kind_of_step(phase_of(progress, budget, recipe.run), step, recipe.run)
            for rank in ranks:
                trainer.rank, trainer.processes = rank, 2
                batch = getattr(replace(trainer.batches, rank=rank), kind)(step)
                (trainer.losses(kind, step, batch)[0] / len(ranks)).backward()
            trainer.optimizers.step(learning_rate(progress, budget, recipe.run), [])
        return trainer.optimizers.masters

    both, first = alone((0, 1)), alone((0,))

    def distance(masters: dict[str, torch.Tensor]) -> float:
        return sum(float((masters[name] - theirs).square().sum()) for name, theirs in state["masters"].items()) ** 0.5

    with torch.no_grad():
        assert distance(both) < 0.2 * distance(first)


# losses


def test_the_encoder_needs_no_mask_if_the_window_covers_all(recipe: Recipe) -> None:
    model = random_model(recipe)
    assert model.config.sliding_window == 32
    device = torch.device("cpu")
    short, long = encoder_masks(model, 32, device), encoder_masks(model, 80, device)
    assert short["sliding_attention"] is CAUSAL and long["sliding_attention"] is not CAUSAL
    tokens = torch.randint(VOCAB, (2, 80), generator=torch.Generator().manual_seed(0))
    hidden, memory = encode(model, tokens)
    explicit = {"full_attention": causal_mask(80, 0, None, device), "sliding_attention": long["sliding_attention"]}
    other = EncoderMemory()
    expected = model.encode(tokens, torch.arange(80)[None], explicit, other)  # type: ignore[arg-type]
    torch.testing.assert_close(hidden, expected)
    for ours, theirs in zip(memory.layers, other.layers, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_padding_does_not_change_the_loss(recipe: Recipe) -> None:
    model = random_model(recipe)
    batch = batch_of()
    noisy, noised = add_noise(batch, recipe.model.noise, VOCAB, torch.Generator().manual_seed(0))
    other = replace(batch)
    columns = torch.arange(batch.canvas.shape[1])
    padding = columns[None] >= batch.canvas_length[:, None]
    other.prompt = torch.where(torch.arange(48)[None] >= batch.prompt_length[:, None], 7, batch.prompt)
    before = diffusion_loss(model, batch, noisy, noised, self_condition=True)
    after = diffusion_loss(model, other, torch.where(padding, 99, noisy), noised, self_condition=True)
    torch.testing.assert_close(before[0], after[0])


def test_sharing_a_prompt_does_not_change_the_loss(recipe: Recipe) -> None:
    model = random_model(recipe)
    config = replace(SMALL, canvases=3)
    rng = np.random.default_rng(0)
    rows = [row for _ in range(2) for row in diffusion_rows(source(), config, rng)]
    shared, apart = diffusion_batch(rows, config), diffusion_batch(rows, SMALL)
    assert len(shared.prompt) == 2 and len(apart.prompt) == 6
    noisy, noised = add_noise(shared, recipe.model.noise, VOCAB, torch.Generator().manual_seed(0))
    one = diffusion_loss(model, shared, noisy, noised, self_condition=True)
    other = diffusion_loss(model, apart, noisy, noised, self_condition=True)
    torch.testing.assert_close(one[0], other[0])
    torch.testing.assert_close(one[1], other[1])


# recipes


def test_the_recipe_of_the_shipped_model_is_read() -> None:
    for name in ("pocket.toml", "pocket_gpu.toml"):
        recipe = read_recipe(ROOT / "train" / name, 8192)
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
def test_a_recipe_with_unknown_or_missing_fields_is_refused(tmp_path: Path, line: str, wrong: str) -> None:
    (tmp_path / "recipe.toml").write_text(line)
    with pytest.raises(InputError, match=wrong):
        read_recipe(tmp_path / "recipe.toml", 8192)


def test_a_missing_or_invalid_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml", 8192)
    (tmp_path / "recipe.toml").write_text("[model")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "recipe.toml", 8192)

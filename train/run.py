"""The training loop: causal first, then diffusion with the same weights; resumable, logged, bounded by time.

Works on whatever torch finds (CPU, CUDA): a working copy of the weights in bf16, fp32 masters in the
optimizers. Must not know how windows are laid out (train/layout.py) nor what the losses are
(train/objective.py).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from engine.errors import GessoError
from engine.model import DiffusionGemma
from train.data import TokenFiles, in_background, make_causal_batch, make_diffusion_batch
from train.objective import add_noise, causal_loss, diffusion_loss
from train.recipe import Recipe, RunConfig, read_recipe

console = Console(highlight=False)


def initialise(model: DiffusionGemma, generator: torch.Generator) -> None:
    """Normal weights of variance 1 / fan-in; branches enter the residual stream at a third of their scale."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
        elif "post_attention_norm" in name or "post_feedforward_norm" in name:
            nn.init.constant_(parameter, 0.3)


class Optimizers:
    """Muon (torch.optim.Muon) for the matrices of the layers, AdamW for embedding, experts, norms and
    scalars.

    They hold fp32 masters; `step` takes the gradients of the working copy and writes the new weights back.
    """

    def __init__(self, model: DiffusionGemma, run: RunConfig) -> None:
        self.working = dict(model.named_parameters())
        self.masters = {name: p.detach().float().clone().requires_grad_() for name, p in self.working.items()}
        matrices = [
            p for name, p in self.masters.items() if p.dim() == 2 and "embed" not in name and "router" not in name
        ]
        others = [p for p in self.masters.values() if all(p is not matrix for matrix in matrices)]
        self.rates = (run.muon_lr, run.adam_lr)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=run.muon_lr, weight_decay=run.weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=run.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def step(self, rate: float) -> float:
        """One update at `rate` of the full learning rates; returns the gradient's norm before clipping at
        1."""
        for name, master in self.masters.items():
            grad = self.working[name].grad
            master.grad = None if grad is None else grad.float()
        norm = float(nn.utils.clip_grad_norm_(self.masters.values(), 1.0))
        for optimizer, full in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = full * rate
            optimizer.step()
        with torch.no_grad():
            for name, master in self.masters.items():
                self.working[name].copy_(master)
                self.working[name].grad = None
        return norm

    def state(self) -> dict[str, Any]:
        return {
            "masters": self.masters,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(state["masters"][name])
                self.working[name].copy_(master)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


@dataclass
class Progress:
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0


def learning_rate(progress: Progress, budget: float, run: RunConfig) -> float:
    """Warm-up by steps, then constant, then linear to a twentieth over the last `decay_share` of the time."""
    left = max(0.0, 1.0 - progress.seconds / budget)
    decay = min(1.0, left / run.decay_share) if run.decay_share else 1.0
    return min(1.0, (progress.step + 1) / run.warmup_steps) * max(0.05, decay)


class Trainer:
    """One run in `folder`: checkpoint.pt, log.jsonl, recipe copy."""

    def __init__(self, recipe: Recipe, data: Path, tokenizer: Path, folder: Path, compiled: bool) -> None:
        self.recipe, self.folder = recipe, folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.train_files = TokenFiles(data, tokenizer, "train")
        self.valid_files = TokenFiles(data, tokenizer, "valid")
        model = DiffusionGemma(recipe.model)
        initialise(model, torch.Generator().manual_seed(recipe.run.seed))
        self.model = model.to(self.device, torch.bfloat16)
        self.optimizers = Optimizers(self.model, recipe.run)
        self.progress = Progress()
        self.noise_generator = torch.Generator(self.device)
        if compiled:
            torch._dynamo.config.recompile_limit = 256
            for layer in self.model.layers:
                layer.compile(dynamic=False)

    def save(self) -> None:
        state = {
            "progress": vars(self.progress),
            "config": self.recipe.config_json,
            **self.optimizers.state(),
        }
        temporary = self.folder / "checkpoint.pt.new"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / "checkpoint.pt")

    def resume(self) -> None:
        state = torch.load(self.folder / "checkpoint.pt", map_location=self.device, weights_only=True)
        self.optimizers.load(state)
        self.progress = Progress(**state["progress"])

    def rng(self, step: int, split: int) -> np.random.Generator:
        return np.random.default_rng((self.recipe.run.seed, split, step))

    def make(self, phase: str, step: int, split: int = 0) -> Any:
        files = self.valid_files if split else self.train_files
        rng, layout, rows = self.rng(step, split), self.recipe.layout, self.recipe.run.rows
        if phase == "causal":
            return make_causal_batch(files, rows, layout.prompt + layout.canvas, rng)
        return make_diffusion_batch(files, rows, layout, rng)

    def losses(self, phase: str, step: int, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if phase == "causal":
            tokens, weight = (x.to(self.device, non_blocking=True) for x in batch)
            loss = causal_loss(self.model, tokens, weight)
            return loss, {"causal": loss}
        batch = batch.to(self.device)
        self.noise_generator.manual_seed(step)
        noisy, noised = add_noise(batch, self.recipe.model.noise, self.recipe.model.vocab_size, self.noise_generator)
        hole, causal = diffusion_loss(self.model, batch, noisy, noised, self_condition=step % 2 == 1)
        return hole + self.recipe.run.encoder_loss_weight * causal, {"hole": hole, "causal": causal}

    def evaluate(self, phase: str, batches: int = 4) -> dict[str, float]:
        totals: dict[str, float] = {}
        with torch.no_grad():
            for index in range(batches):
                _, parts = self.losses(phase, index, self.make(phase, index, split=1))
                for name, value in parts.items():
                    totals[f"valid_{name}"] = totals.get(f"valid_{name}", 0.0) + float(value) / batches
        return totals

    def report(self, record: dict[str, Any], budget: float) -> None:
        """One line for the log, one for the console."""
        rounded = {name: round(v, 5) if isinstance(v, float) else v for name, v in record.items()}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(rounded) + "\n")
        minutes = f"{self.progress.seconds / 60:.1f}/{budget / 60:.0f} min"
        shown = "  ".join(f"{name} {v:.3f}" for name, v in record.items() if isinstance(v, float))
        console.print(f"{record['phase']} step {self.progress.step} {minutes}  {shown}")

    def run(self, budget: float, save_every: float = 300.0) -> None:
        """Trains until `budget` seconds of training time are spent; Ctrl-C saves and stops."""
        run, layout = self.recipe.run, self.recipe.layout
        per_step = run.rows * (layout.prompt + layout.canvas)
        phase: str = ""
        batches: Iterator[Any] = iter(())
        saved = evaluated = time.monotonic()
        with _saving_on_interrupt(self):
            while self.progress.seconds < budget:
                wanted = "causal" if self.progress.seconds < run.causal_share * budget else "diffusion"
                if wanted != phase:
                    phase = wanted
                    batches = in_background(partial(self.make, phase), self.progress.step)
                started = time.monotonic()
                rate = learning_rate(self.progress, budget, run)
                loss, parts = self.losses(phase, self.progress.step, next(batches))
                loss.backward()
                norm = self.optimizers.step(rate)
                spent = time.monotonic() - started
                self.progress = Progress(
                    self.progress.step + 1, self.progress.seconds + spent, self.progress.tokens + per_step
                )
                if self.progress.step % 20 == 0:
                    record: dict[str, Any] = {
                        "phase": phase,
                        **vars(self.progress),
                        "rate": rate,
                        "norm": norm,
                    }
                    record |= {name: value.item() for name, value in parts.items()}
                    record["tokens_per_second"] = per_step / spent
                    if time.monotonic() - evaluated > save_every:
                        evaluated = time.monotonic()
                        record |= self.evaluate(phase)
                    self.report(record, budget)
                if time.monotonic() - saved > save_every:
                    saved = time.monotonic()
                    self.save()
        self.save()


@contextmanager
def _saving_on_interrupt(trainer: Trainer) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        trainer.save()
        step = trainer.progress.step
        console.print(f"Stopped at step {step}; the same command goes on from there.")
        raise


def main(
    data: Annotated[Path, typer.Option(help="Folder that train.prepare wrote.")],
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json of the model.")],
    out: Annotated[Path, typer.Option(help="Folder of this run: checkpoint and log.")],
    recipe: Annotated[Path, typer.Option(help="The recipe to train by.")] = Path("train/pocket.toml"),
    minutes: Annotated[float, typer.Option(help="Training time in all, counted over resumptions.")] = 60.0,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the layers.")] = True,
) -> None:
    """Train a pocket model. Run the same command again to go on after an interruption."""
    from tokenizers import Tokenizer

    try:
        if not tokenizer.is_file():
            raise GessoError(f"There is no tokenizer {tokenizer}; make it with `python -m train.tokenizer`.")
        vocab = Tokenizer.from_file(str(tokenizer)).get_vocab_size()
        out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(read_recipe(recipe, vocab), data, tokenizer, out, compiled)
        if (out / "checkpoint.pt").is_file():
            trainer.resume()
        trainer.run(minutes * 60)
    except GessoError as error:
        console.print(f"[red]{error}[/]")
        raise typer.Exit(3) from error


if __name__ == "__main__":
    typer.run(main)

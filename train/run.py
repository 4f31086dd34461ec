"""The training loop: causal steps, then diffusion with the same weights. Resumable, limited by time or tokens.

Runs on CPU or CUDA, in one process or, started by `torchrun`, in several that average their gradients. The working
weights are bf16; the optimizers keep fp32 masters. Must not know how windows are laid out (train/layout.py), nor what
the losses are (train/objective.py).
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer
from rich.console import Console
from torch import Tensor

from engine.errors import InputError
from engine.models.diffusion_gemma import DiffusionGemma
from train.data import BatchMaker, TokenFiles, in_background
from train.layout import LayoutConfig
from train.objective import add_noise, causal_loss, diffusion_loss
from train.optimizers import Optimizers, initialize
from train.program import reports_errors
from train.recipe import Recipe, RunConfig, read_recipe
from train.throughput import measured_peak, window_flops

console = Console(highlight=False)
LOG_EVERY = 20  # steps
SAVE_EVERY = 300.0  # seconds
INTERRUPTED = 130  # exit code of a run stopped before the end of its budget


@dataclass(frozen=True)
class Progress:
    """Steps, seconds and positions (tokens and padding) so far, over all resumptions and processes."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0

    def after(self, seconds: float, positions: int) -> Progress:
        """The progress after one more step."""
        return Progress(self.step + 1, self.seconds + seconds, self.tokens + positions)


@dataclass(frozen=True)
class Budget:
    """The limit of a run: seconds, tokens or both. None: no limit."""

    seconds: float | None = None
    tokens: int | None = None

    def share(self, progress: Progress) -> float:
        """The share of the budget that is used; 1 or more at the end."""
        by_time = progress.seconds / self.seconds if self.seconds is not None else 0.0
        by_tokens = progress.tokens / self.tokens if self.tokens is not None else 0.0
        return max(by_time, by_tokens)


def learning_rate(progress: Progress, budget: Budget, run: RunConfig) -> float:
    """Factor of the learning rates: warm-up by steps, constant, then linear to 1/20 over the last `decay_share`."""
    left = max(0.0, 1.0 - budget.share(progress))
    decay = min(1.0, left / run.decay_share) if run.decay_share else 1.0
    return min(1.0, (progress.step + 1) / run.warmup_steps) * max(0.05, decay)


def phase_of(progress: Progress, budget: Budget, run: RunConfig) -> str:
    causal = run.causal_share >= 1.0 or budget.share(progress) < run.causal_share
    return "causal" if causal else "diffusion"


def kind_of_step(phase: str, step: int, run: RunConfig) -> str:
    """A share `mixed_causal` of the steps in the diffusion phase stays causal, spread evenly."""
    if phase == "causal" or int((step + 1) * run.mixed_causal) > int(step * run.mixed_causal):
        return "causal"
    return "diffusion"


def held_out_layout(layout: LayoutConfig) -> LayoutConfig:
    """The default layout with the prompt and canvas sizes of `layout`, so that losses of recipes with the same sizes
    are comparable. Smaller prompts and canvases scale their parts down."""
    default, prompt, canvas = LayoutConfig(), layout.prompt, layout.canvas
    return replace(
        default,
        prompt=prompt,
        canvas=canvas,
        far_suffix=min(default.far_suffix, default.far_suffix * prompt // default.prompt),
        header=min(default.header, default.header * prompt // default.prompt),
        supervised=min(default.supervised, default.supervised * canvas // default.canvas),
    )


@dataclass
class Meter:
    """Counts since the last line of the log: positions, operations, seconds of waiting for batches."""

    begun: float = field(default_factory=time.monotonic)
    positions: int = 0
    flops: float = 0.0
    waited: float = 0.0

    def figures(self, peak: float) -> dict[str, float]:
        """Rates since the last line. waiting: share of time without a batch. peak: operations per second."""
        seconds = time.monotonic() - self.begun
        return {
            "tokens_per_second": self.positions / seconds,
            "share_of_peak": self.flops / seconds / peak,
            "waiting": self.waited / seconds,
        }


class Trainer:
    """One training run. Writes checkpoint.pt and log.jsonl into `folder`."""

    def __init__(self, recipe: Recipe, data: Path, tokenizer: Path, folder: Path, compiled: bool) -> None:
        self.recipe, self.folder, self.compiled = recipe, folder, compiled
        self.rank, self.processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self.device)
        files = TokenFiles(data, tokenizer, "train"), TokenFiles(data, tokenizer, "valid")
        self.batches = BatchMaker(files, recipe.layout, recipe.run.rows, recipe.run.seed, self.rank)
        self.held_out = BatchMaker(files, held_out_layout(recipe.layout), recipe.run.rows, 0)
        model = DiffusionGemma(recipe.model)
        initialize(model, torch.Generator().manual_seed(recipe.run.seed))
        self.model = model.to(self.device, torch.bfloat16)
        self.optimizers = Optimizers(self.model, recipe.run)
        self.progress = Progress()
        self.noise_generator = torch.Generator(self.device)
        self.interrupted = False  # this process received a signal
        if compiled:
            for layer in self.model.layers:
                for half in ("before_attention", "after_attention"):
                    setattr(layer, half, torch.compile(getattr(layer, half), dynamic=False))

    def save(self) -> None:
        if self.rank:
            return
        state = {"progress": vars(self.progress), "config": self.recipe.config_json, **self.optimizers.state()}
        temporary = self.folder / "checkpoint.pt.new"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / "checkpoint.pt")

    def resume(self) -> None:
        state = self._read(self.folder / "checkpoint.pt")
        self.optimizers.load(state)
        self.progress = Progress(**state["progress"])

    def start_from(self, checkpoint: Path) -> None:
        """Loads only the weights of another run."""
        self.optimizers.load_weights(self._read(checkpoint)["masters"])

    def _read(self, checkpoint: Path) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(checkpoint, map_location=self.device, weights_only=True)
        stored, expected = state["config"]["text_config"], self.recipe.config_json["text_config"]
        if differing := [name for name in expected if stored.get(name) != expected[name]]:
            raise InputError(
                f"{checkpoint} has a model of another shape ({', '.join(differing)} differ); use its own recipe or "
                "another folder."
            )
        return state

    def losses(
        self, kind: str, step: int, batch: Any, noise_level: float | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss to minimize, its parts)."""
        if kind == "causal":
            tokens, weight = (x.to(self.device, non_blocking=True) for x in batch)
            loss = causal_loss(self.model, tokens, weight, self.compiled)
            return loss, {"causal": loss}
        batch = batch.to(self.device)
        self.noise_generator.manual_seed(step * self.processes + self.rank)
        config = self.model.config
        noisy, noised = add_noise(batch, config.noise, config.vocab_size, self.noise_generator, noise_level)
        hole, causal = diffusion_loss(self.model, batch, noisy, noised, step % 2 == 1, self.compiled)
        return hole + self.recipe.run.encoder_loss_weight * causal, {"hole": hole, "causal": causal}

    def evaluate(self, batches: int = 4) -> dict[str, float]:
        """Held-out losses, on windows of `held_out_layout`.

        valid_causal: whole windows. valid_hole: holes at all noise levels, half of the batches with self-conditioning.
        valid_hole_first: holes of pure noise, as in the first step of an infill.
        """
        totals = {"valid_causal": 0.0, "valid_hole": 0.0, "valid_hole_first": 0.0}
        with torch.no_grad():
            for index in range(batches):
                causal, holes = self.held_out.causal(index, 1), self.held_out.diffusion(index, 1)
                totals["valid_causal"] += float(self.losses("causal", index, causal)[1]["causal"])
                totals["valid_hole"] += float(self.losses("diffusion", index, holes)[1]["hole"])
                totals["valid_hole_first"] += float(self.losses("diffusion", 2 * index, holes, 1.0)[1]["hole"])
        return {name: total / batches for name, total in totals.items()}

    def run(self, budget: Budget, save_every: float = SAVE_EVERY) -> bool:
        """Trains until the budget is used up. Returns False if SIGINT or SIGTERM stopped it; it saves in both cases."""
        run, layout = self.recipe.run, self.recipe.layout
        peak = measured_peak(self.device) * self.processes
        flops = {kind: window_flops(self.model.config, layout, kind) for kind in ("causal", "diffusion")}
        phase, stopping = "", False
        batches: Iterator[Any] = iter(())
        saved = evaluated = begun = time.monotonic()
        meter = Meter()
        with _recording_signals(self):
            while budget.share(self.progress) < 1.0 and not stopping:
                next_phase = phase_of(self.progress, budget, run)
                if next_phase != phase:
                    phase = next_phase
                    make = PhaseBatches(self.batches, phase, run)
                    batches = in_background(make, self.progress.step, run.workers, pin=True)
                rate, kind = learning_rate(self.progress, budget, run), kind_of_step(phase, self.progress.step, run)
                waiting = time.monotonic()
                batch = next(batches)
                meter.waited += time.monotonic() - waiting
                loss, parts = self.losses(kind, self.progress.step, batch)
                loss.backward()
                now = time.monotonic()
                norm, (spent, stop) = self.optimizers.step(rate, [now - begun, float(self.interrupted)])
                begun, stopping = now, stop > 0.0
                windows = run.rows * self.processes
                meter.positions += windows * layout.window(kind)
                meter.flops += windows * flops[kind]
                self.progress = self.progress.after(spent, windows * layout.window(kind))
                if self.progress.step % LOG_EVERY == 0:
                    record = {"rate": rate, "norm": float(norm), **{name: part.item() for name, part in parts.items()}}
                    record |= meter.figures(peak)
                    if time.monotonic() - evaluated > run.evaluate_every:
                        record |= self.evaluate()
                        evaluated = time.monotonic()
                    self.report(phase, record, budget)
                    meter = Meter()
                if time.monotonic() - saved > save_every:
                    self.save()
                    saved = time.monotonic()
        self.save()
        finished = budget.share(self.progress) >= 1.0
        self.report(phase_of(self.progress, budget, run), self.evaluate(24) if finished else {}, budget)
        return finished

    def report(self, phase: str, figures: dict[str, float], budget: Budget) -> None:
        """Writes one line to the log and one to the console."""
        if self.rank:
            return
        record = {"phase": phase, **vars(self.progress), **figures}
        rounded = {name: round(v, 5) if isinstance(v, float) else v for name, v in record.items()}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(rounded) + "\n")
        shown = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        done, minutes = budget.share(self.progress), self.progress.seconds / 60
        console.print(f"{phase} step {self.progress.step} {done:.1%} {minutes:.1f} min  {shown}")


@dataclass(frozen=True)
class PhaseBatches:
    """Makes the batch of a step in a phase. Can be pickled."""

    maker: BatchMaker
    phase: str
    run: RunConfig

    def __call__(self, step: int) -> Any:
        causal = kind_of_step(self.phase, step, self.run) == "causal"
        return self.maker.causal(step) if causal else self.maker.diffusion(step)


@contextmanager
def _recording_signals(trainer: Trainer) -> Iterator[None]:
    """Signals set `trainer.interrupted`. The current step is finished, so that all processes stop at the same step."""

    def note(number: int, frame: object) -> None:
        trainer.interrupted = True
        if trainer.rank == 0:
            console.print("Stopping after this step; run the same command again to continue.")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _processes() -> Iterator[None]:
    """Joins the process group of `torchrun`, if it started this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(minutes=30))
    try:
        yield
    finally:
        dist.destroy_process_group()


def main(
    data: Annotated[Path, typer.Option(help="Folder written by train.prepare.")],
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json of the model.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoint and log.")],
    recipe: Annotated[Path, typer.Option(help="Training recipe.")] = Path("train/pocket.toml"),
    minutes: Annotated[float | None, typer.Option(help="Training time in total, over all resumptions.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Million tokens in total, over all resumptions.")] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="checkpoint.pt with the initial weights of a new run.")
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile layers and loss.")] = True,
) -> None:
    """Train a pocket model. Run the same command again to continue after an interruption."""
    from tokenizers import Tokenizer

    if minutes is None and tokens is None:
        raise InputError("Give the length of the training: --minutes, --tokens, or both.")
    if not tokenizer.is_file():
        raise InputError(f"There is no tokenizer {tokenizer}; make it with `python -m train.tokenizer`.")
    budget = Budget(None if minutes is None else 60 * minutes, None if tokens is None else int(1e6 * tokens))
    vocab = Tokenizer.from_file(str(tokenizer)).get_vocab_size()
    out.mkdir(parents=True, exist_ok=True)
    with _processes():
        trainer = Trainer(read_recipe(recipe, vocab), data, tokenizer, out, compiled)
        if (out / "checkpoint.pt").is_file():
            trainer.resume()
        elif start_from is not None:
            trainer.start_from(start_from)
        finished = trainer.run(budget)
    if not finished:
        raise typer.Exit(INTERRUPTED)


if __name__ == "__main__":
    typer.run(reports_errors(main))

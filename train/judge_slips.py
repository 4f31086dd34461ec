"""How well the weights of a run see slips in names that they were not told of, on held-out files of one language.

`python -m train.judge_slips --data DIR/tokens --tokenizer DIR/tokenizer.json RUN…` reads every canvas once as it is and
once with one name in another one's place, nothing hidden, and asks where the denoiser would rather have another name of
the same canvas. Must not know how lint asks (infill/lint/linter.py): this judges weights, on tokens alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from engine.config import ModelConfig
from engine.errors import GessoError, InputError
from engine.models.diffusion_gemma import DiffusionGemma
from train.data import TokenFiles, diffusion_batch
from train.layout import LayoutConfig, Row, Tokens, diffusion_rows
from train.objective import DecoderMemory, decoder_masks, encode
from train.tokenizer import LANGUAGE_IDS

console = Console(highlight=False)
CANVASES_AT_ONCE = 16


@dataclass(frozen=True)
class Suspicion:
    """The place of a canvas where another name is likelier by most. gain: in nats; place: [first, last) in the canvas;
    name: the tokens that are likelier there."""

    gain: float
    place: tuple[int, int]
    name: tuple[int, ...]


@dataclass(frozen=True)
class Judgement:
    """clean: of canvases as they are. slipped: (what was suspected, the place that was changed, what stood there)."""

    lines: int
    clean: list[Suspicion]
    slipped: list[tuple[Suspicion, tuple[int, int], tuple[int, ...]]]

    def found(self, alarms_in_1000_lines: float) -> tuple[float, float]:
        """(share of the slips found, share rightly mended) at a bar that raises so many alarms on clean canvases."""
        allowed = int(alarms_in_1000_lines * self.lines / 1000)
        gains = sorted((one.gain for one in self.clean), reverse=True)
        bar = gains[allowed] if allowed < len(gains) else 0.0
        shown = [(s, place, name) for s, place, name in self.slipped if s.gain > bar]
        there = [s.name == name for s, place, name in shown if s.place == place]
        return len(there) / len(self.slipped), sum(there) / len(self.slipped)

    @property
    def first(self) -> float:
        """Share of the slips that are suspected more than all else in their canvas, and rightly mended."""
        return sum(s.place == place and s.name == name for s, place, name in self.slipped) / len(self.slipped)


def load(checkpoint: Path) -> DiffusionGemma:
    """Raises InputError where there is no checkpoint."""
    if not checkpoint.is_file():
        raise InputError(f"There is no {checkpoint}; name a folder of `python -m train.run`.")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = DiffusionGemma(ModelConfig.from_json(state["config"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state["masters"][name])
    return model.eval()


@torch.inference_mode()
def suspicions(model: DiffusionGemma, rows: list[Row], config: LayoutConfig, files: TokenFiles) -> list[Suspicion]:
    """For every row the place of its shown canvas where another of its names is likelier by most."""
    batch = diffusion_batch(rows, config)
    _, memory = encode(model, batch.prompt)
    positions = batch.prompt_length[:, None] + torch.arange(batch.canvas.shape[1])[None]
    belief = torch.zeros(*batch.shown.shape, model.config.hidden_size)
    hidden = model.denoise(batch.shown, belief, positions, decoder_masks(model, batch), DecoderMemory(memory, 1))
    found = []
    for row, states in zip(rows, hidden, strict=True):
        likely = model.logits(states[: len(row.shown)]).log_softmax(dim=-1).numpy()
        found.append(_most_suspect(row.shown, likely, files))
    return found


def _most_suspect(shown: Tokens, likely: np.ndarray, files: TokenFiles) -> Suspicion:
    best = Suspicion(0.0, (0, 0), ())
    names = files.slips.names(shown)
    for first, last in names:
        here = tuple(shown[first:last].tolist())
        role = files.slips.role[here[0]]
        columns = np.arange(first, last)
        for other in {tuple(shown[a:b].tolist()) for a, b in names if b - a == last - first} - {here}:
            if files.slips.role[other[0]] == role:
                gain = float(likely[columns, list(other)].sum() - likely[columns, list(here)].sum())
                if gain > best.gain:
                    best = Suspicion(gain, (first, last), other)
    return best


def with_one_slip(row: Row, files: TokenFiles, rng: np.random.Generator) -> tuple[Row, tuple[int, int]] | None:
    """The row with one name in another one's place, and where; None where no two names of a length differ."""
    shown = row.canvas
    names = [(a, b, tuple(shown[a:b].tolist())) for a, b in files.slips.names(shown)]
    for index in rng.permutation(len(names)):
        first, last, here = names[index]
        role = files.slips.role[here[0]]
        others = [t for a, b, t in names if len(t) == len(here) and t != here and files.slips.role[t[0]] == role]
        if others:
            changed = shown.copy()
            changed[first:last] = others[rng.integers(len(others))]
            return replace(row, shown=changed), (first, last)
    return None


def judge(
    model: DiffusionGemma, files: TokenFiles, config: LayoutConfig, language: int, count: int, seed: int = 5
) -> Judgement:
    rng = np.random.default_rng(seed)
    whole = replace(config, canvases=1, canvas_prompt=0, whole_canvas_share=1.0, slip_share=0.0, neighbour_share=0.0)
    clean: list[Row] = []
    changed: list[tuple[Row, tuple[int, int]]] = []
    while len(changed) < count:
        file = files.random_file(rng, whole)
        if file.language != language:
            continue
        (row,) = diffusion_rows(file, whole, rng)
        if (slip := with_one_slip(row, files, rng)) is not None:
            clean.append(row)
            changed.append(slip)
    rows = clean + [row for row, _ in changed]
    said: list[Suspicion] = []
    for at in range(0, len(rows), CANVASES_AT_ONCE):
        said += suspicions(model, rows[at : at + CANVASES_AT_ONCE], whole, files)
    lines = sum(int(files.begins_line[row.canvas].sum()) for row in clean)
    truth = [(place, tuple(row.canvas[slice(*place)].tolist())) for row, place in changed]
    slipped = [(one, place, name) for one, (place, name) in zip(said[len(clean) :], truth, strict=True)]
    return Judgement(lines, said[: len(clean)], slipped)


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, each with checkpoint.pt.")],
    data: Annotated[Path, typer.Option(help="Folder that train.prepare wrote.")],
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json of the model.")],
    language: Annotated[str, typer.Option(help="Of the files to judge by.")] = "python",
    count: Annotated[int, typer.Option(help="Canvases, each as it is and with a slip.")] = 800,
) -> None:
    """Print, for every run, how many slips in names it finds."""
    try:
        files = TokenFiles(data, tokenizer, "valid")
        config = LayoutConfig(prompt=640, far_suffix=160, header=192)
        table = Table("run", "first and right", *(f"found, mended at {bar} in 1,000 lines" for bar in (1, 5, 20)))
        for run in runs:
            judged = judge(load(run / "checkpoint.pt"), files, config, LANGUAGE_IDS[language], count)
            shares = [judged.found(bar) for bar in (1, 5, 20)]
            table.add_row(run.name, f"{judged.first:.1%}", *(f"{found:.1%}, {mended:.1%}" for found, mended in shares))
        console.print(table, f"{count} canvases, {judged.lines} lines")
    except GessoError as error:
        console.print(f"[red]{error}[/]")
        raise typer.Exit(3) from error


if __name__ == "__main__":
    typer.run(main)

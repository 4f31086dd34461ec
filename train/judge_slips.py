"""Measures how well the weights of a run detect misplaced names, on held-out files of one language.

`python -m train.judge_slips --data DIR/tokens --tokenizer DIR/tokenizer.json RUN…` reads every canvas unchanged and
with one name replaced by another, without noise, and finds the name for which the denoiser most prefers another name
of the same canvas. Must not know how lint uses the model (infill/lint/linter.py): it judges weights, on tokens only.
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

from engine.models.diffusion_gemma import DiffusionGemma
from train.data import TokenFiles, diffusion_batch
from train.export import read_checkpoint
from train.layout import LayoutConfig, Row, Tokens, diffusion_rows
from train.objective import DecoderMemory, decoder_masks, encode
from train.program import reports_errors
from train.tokenizer import LANGUAGE_IDS

BATCH = 16  # canvases
ALARM_RATES = (1, 5, 20)  # false alarms in 1,000 lines


@dataclass(frozen=True)
class Suspicion:
    """The most suspect name of a canvas. gain: nats by which `name` is likelier. span: [first, last) in the canvas.
    name: the likelier tokens."""

    gain: float
    span: tuple[int, int]
    name: tuple[int, ...]


@dataclass(frozen=True)
class Judgement:
    """clean: suspicions in unchanged canvases. slipped: (suspicion, changed span, original name) of changed ones."""

    lines: int
    clean: list[Suspicion]
    slipped: list[tuple[Suspicion, tuple[int, int], tuple[int, ...]]]

    def found(self, alarm_rate: float) -> tuple[float, float]:
        """(share of slips found, share found and corrected) at the threshold with this rate of false alarms."""
        allowed = int(alarm_rate * self.lines / 1000)
        gains = sorted((one.gain for one in self.clean), reverse=True)
        threshold = gains[allowed] if allowed < len(gains) else 0.0
        shown = [(s, span, name) for s, span, name in self.slipped if s.gain > threshold]
        corrected = [s.name == name for s, span, name in shown if s.span == span]
        return len(corrected) / len(self.slipped), sum(corrected) / len(self.slipped)

    @property
    def first(self) -> float:
        """Share of the slips that are the most suspect name of their canvas, and corrected."""
        return sum(s.span == span and s.name == name for s, span, name in self.slipped) / len(self.slipped)


@torch.inference_mode()
def suspicions(model: DiffusionGemma, rows: list[Row], config: LayoutConfig, files: TokenFiles) -> list[Suspicion]:
    """The most suspect name of every row's shown canvas."""
    batch = diffusion_batch(rows, config)
    _, memory = encode(model, batch.prompt)
    positions = batch.prompt_length[:, None] + torch.arange(batch.canvas.shape[1])[None]
    belief = torch.zeros(*batch.shown.shape, model.config.hidden_size)
    hidden = model.denoise(batch.shown, belief, positions, decoder_masks(model, batch), DecoderMemory(memory, 1))
    found = []
    for row, states in zip(rows, hidden, strict=True):
        log_p = model.logits(states[: len(row.shown)]).log_softmax(dim=-1).numpy()
        found.append(_most_suspect(row.shown, log_p, files))
    return found


def _most_suspect(shown: Tokens, log_p: np.ndarray, files: TokenFiles) -> Suspicion:
    best = Suspicion(0.0, (0, 0), ())
    names = files.slips.names(shown)
    for first, last in names:
        name = tuple(shown[first:last].tolist())
        role = files.slips.role[name[0]]
        columns = np.arange(first, last)
        for other in {tuple(shown[a:b].tolist()) for a, b in names if b - a == last - first} - {name}:
            if files.slips.role[other[0]] == role:
                gain = float(log_p[columns, list(other)].sum() - log_p[columns, list(name)].sum())
                if gain > best.gain:
                    best = Suspicion(gain, (first, last), other)
    return best


def with_one_slip(row: Row, files: TokenFiles, rng: np.random.Generator) -> tuple[Row, tuple[int, int]] | None:
    """(row with one name replaced by another, changed span); None if the canvas has no two different names of the same
    length."""
    shown = row.canvas
    names = [(a, b, tuple(shown[a:b].tolist())) for a, b in files.slips.names(shown)]
    for index in rng.permutation(len(names)):
        first, last, name = names[index]
        role = files.slips.role[name[0]]
        others = [t for a, b, t in names if len(t) == len(name) and t != name and files.slips.role[t[0]] == role]
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
    found: list[Suspicion] = []
    for at in range(0, len(rows), BATCH):
        found += suspicions(model, rows[at : at + BATCH], whole, files)
    lines = sum(int(files.begins_line[row.canvas].sum()) for row in clean)
    truth = [(span, tuple(row.canvas[slice(*span)].tolist())) for row, span in changed]
    slipped = [(one, span, name) for one, (span, name) in zip(found[len(clean) :], truth, strict=True)]
    return Judgement(lines, found[: len(clean)], slipped)


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of training runs.")],
    data: Annotated[Path, typer.Option(help="Folder written by train.prepare.")],
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json of the model.")],
    language: Annotated[str, typer.Option(help="Language of the files.")] = "python",
    count: Annotated[int, typer.Option(help="Canvases, each unchanged and with a slip.")] = 800,
) -> None:
    """Print how many misplaced names each run finds."""
    files = TokenFiles(data, tokenizer, "valid")
    config = LayoutConfig(prompt=640, far_suffix=160, header=192)
    columns = (f"found, corrected at {rate} false alarms in 1,000 lines" for rate in ALARM_RATES)
    table = Table("run", "first and corrected", *columns)
    for run in runs:
        model, _ = read_checkpoint(run)
        judged = judge(model.eval(), files, config, LANGUAGE_IDS[language], count)
        shares = [judged.found(rate) for rate in ALARM_RATES]
        cells = (f"{found:.1%}, {corrected:.1%}" for found, corrected in shares)
        table.add_row(run.name, f"{judged.first:.1%}", *cells)
    Console().print(table, f"{count} canvases, {judged.lines} lines")


if __name__ == "__main__":
    typer.run(reports_errors(main))

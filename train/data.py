"""Prepared token files to batches. Reads what `train.prepare` writes; a background thread keeps batches
ready."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from engine.errors import InputError
from train.layout import FileTokens, LayoutConfig, Row, causal_row, diffusion_row
from train.objective import DiffusionBatch


class TokenFiles:
    """Random access to the prepared files of one split."""

    def __init__(self, folder: Path, tokenizer: Path, split: str) -> None:
        for name in (f"tokens-{split}.bin", f"files-{split}.npy", f"spans-{split}.npy"):
            if not (folder / name).is_file():
                raise InputError(f"{folder} has no {name}; make it with `python -m train.prepare`.")
        self.tokens = np.memmap(folder / f"tokens-{split}.bin", dtype=np.uint16, mode="r")
        self.files = np.load(folder / f"files-{split}.npy")
        spans = np.load(folder / f"spans-{split}.npy")
        self.spans = np.stack([spans[name].astype(np.int64) for name in ("start", "end", "kind")], axis=1)
        vocab = Tokenizer.from_file(str(tokenizer)).get_vocab()
        self.begins_line = np.zeros(max(vocab.values()) + 1, dtype=bool)
        for piece, token in vocab.items():
            self.begins_line[token] = piece.startswith("Ċ")

    def random_file(self, rng: np.random.Generator) -> FileTokens:
        """A file, with a probability that grows with its length."""
        at = rng.integers(len(self.tokens))
        return self.file(int(np.searchsorted(self.files["start"], at, side="right")) - 1)

    def file(self, index: int) -> FileTokens:
        start, end = int(self.files["start"][index]), int(self.files["end"][index])
        tokens = self.tokens[start:end].astype(np.int64)
        low, high = np.searchsorted(self.spans[:, 0], (start, end))
        spans = self.spans[low:high] - np.array([start, start, 0])
        newlines = np.flatnonzero(self.begins_line[tokens])
        return FileTokens(tokens, newlines, spans, int(self.files["language"][index]))


def diffusion_batch(rows: list[Row], config: LayoutConfig) -> DiffusionBatch:
    count = len(rows)
    prompt = torch.zeros(count, config.prompt, dtype=torch.long)
    canvas = torch.zeros(count, config.canvas, dtype=torch.long)
    hole = torch.zeros(count, config.canvas, dtype=torch.bool)
    targets = torch.zeros(count, config.supervised, dtype=torch.long)
    weight = torch.zeros(count, config.supervised)
    for index, row in enumerate(rows):
        prompt[index, : len(row.prompt)] = torch.from_numpy(row.prompt)
        canvas[index, : len(row.canvas)] = torch.from_numpy(row.canvas)
        hole[index, : len(row.canvas)] = torch.from_numpy(row.hole)
        hole[index, len(row.canvas) :] = bool(row.hole.all())
        columns = np.flatnonzero((row.weight > 0) & row.hole)[: config.supervised]
        targets[index, : len(columns)] = torch.from_numpy(columns)
        weight[index, : len(columns)] = torch.from_numpy(row.weight[columns])
    lengths = [torch.tensor([len(getattr(row, name)) for row in rows]) for name in ("prompt", "canvas")]
    return DiffusionBatch(prompt, lengths[0], canvas, lengths[1], hole, targets, weight)


def make_diffusion_batch(
    files: TokenFiles, size: int, config: LayoutConfig, rng: np.random.Generator
) -> DiffusionBatch:
    return diffusion_batch([diffusion_row(files.random_file(rng), config, rng) for _ in range(size)], config)


def make_causal_batch(files: TokenFiles, size: int, length: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    tokens = torch.zeros(size, length, dtype=torch.long)
    weight = torch.zeros(size, length)
    for index in range(size):
        row, row_weight = causal_row(files.random_file(rng), length, rng)
        tokens[index, : len(row)] = torch.from_numpy(row)
        weight[index, : len(row)] = torch.from_numpy(row_weight)
    return tokens, weight


def in_background(make: Callable[[int], Any], first: int, ahead: int = 4) -> Iterator[Any]:
    """make(first), make(first + 1), … computed ahead by a thread; an error there is raised here."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=ahead)

    def work() -> None:
        step = first
        while True:
            try:
                ready.put(make(step))
            except Exception as error:  # noqa: BLE001 - handed to the consumer
                ready.put(error)
                return
            step += 1

    threading.Thread(target=work, daemon=True).start()
    while True:
        item = ready.get()
        if isinstance(item, Exception):
            raise item
        yield item

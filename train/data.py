"""Makes batches from prepared token files, ahead of the training step, in a thread or in worker processes.

Reads the files of `train.prepare`. Must not know the model, nor what a step does with its batch.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engine.errors import InputError
from train.layout import FileTokens, LayoutConfig, Row, causal_row, diffusion_rows
from train.objective import DiffusionBatch
from train.slips import Slips

COMMON_TOKENS = 2048  # the first merges: single letters, white space, keywords
NEIGHBOUR_CANDIDATES = 4


def line_starts(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """bool [vocabulary]: tokens that begin with a line end, which byte-level BPE spells Ċ."""
    vocab = tokenizer.get_vocab()
    begins = np.zeros(max(vocab.values()) + 1, dtype=bool)
    for piece, token in vocab.items():
        begins[token] = piece.startswith("Ċ")
    return begins


class TokenFiles:
    """Random access to the prepared files of one split. A pickled one holds the paths and opens the files again."""

    def __init__(self, folder: Path, tokenizer: Path, split: str) -> None:
        self._arguments = (folder, tokenizer, split)
        for name in (f"tokens-{split}.bin", f"files-{split}.npy", f"spans-{split}.npy"):
            if not (folder / name).is_file():
                raise InputError(f"{folder} has no {name}; make it with `python -m train.prepare`.")
        mapped = np.memmap(folder / f"tokens-{split}.bin", dtype=np.uint16, mode="r")
        self.tokens = mapped.view(np.ndarray)  # slices of the subclass cost several times as much
        files = np.load(folder / f"files-{split}.npy")
        self.starts, self.ends, self.languages = (files[name].astype(np.int64) for name in ("start", "end", "language"))
        by_project = np.argsort(files["project"], kind="stable")
        borders = np.flatnonzero(np.diff(files["project"][by_project])) + 1
        self.project_of = np.empty(len(files), dtype=np.int64)
        self.projects = np.split(by_project, borders)
        for project, members in enumerate(self.projects):
            self.project_of[members] = project
        spans = np.load(folder / f"spans-{split}.npy")
        self.spans = np.stack([spans[name].astype(np.int64) for name in ("start", "end", "kind")], axis=1)
        opened = Tokenizer.from_file(str(tokenizer))
        self.begins_line = line_starts(opened)
        self.slips = Slips(opened)

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenFiles, self._arguments

    def random_file(self, rng: np.random.Generator, config: LayoutConfig) -> FileTokens:
        """A file, drawn in proportion to its length; in `neighbour_share` of the draws with lines of a neighbour."""
        at = rng.integers(len(self.tokens))
        index = int(np.searchsorted(self.starts, at, side="right")) - 1
        file = self.file(index)
        if rng.random() >= config.neighbour_share:
            return file
        return replace(file, neighbour=self._neighbour(index, file, config, rng))

    def _neighbour(
        self, index: int, file: FileTokens, config: LayoutConfig, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Whole lines of another file of the project, at most `header` tokens: of NEIGHBOUR_CANDIDATES random excerpts
        the one that shares the most rare tokens with the file."""
        members = self.projects[self.project_of[index]]
        used = np.zeros(len(self.begins_line), dtype=bool)
        used[file.tokens] = True
        used[:COMMON_TOKENS] = False
        best, most = file.tokens[:0], 0
        for other in members[rng.integers(len(members), size=NEIGHBOUR_CANDIDATES)]:
            if other == index:
                continue
            begin, end = int(self.starts[other]), int(self.ends[other])
            at = int(rng.integers(begin, max(begin + 1, end - config.header)))
            lines = self.tokens[at : min(end, at + config.header + 1)].astype(np.int64)
            breaks = np.flatnonzero(self.begins_line[lines])
            if len(breaks) < 2:
                continue
            lines = lines[breaks[0] : breaks[-1]]
            shared = int(used[np.unique(lines)].sum())
            if shared > most:
                best, most = lines, shared
        return best

    def file(self, index: int) -> FileTokens:
        start, end = int(self.starts[index]), int(self.ends[index])
        tokens = self.tokens[start:end].astype(np.int64)
        low, high = np.searchsorted(self.spans[:, 0], (start, end))
        spans = self.spans[low:high] - np.array([start, start, 0])
        newlines = np.flatnonzero(self.begins_line[tokens])
        return FileTokens(tokens, newlines, spans, int(self.languages[index]))


def diffusion_batch(rows: list[Row], config: LayoutConfig) -> DiffusionBatch:
    """A batch of rows, in groups of `canvases` that share a prompt."""
    count = len(rows)
    leading = rows[:: config.canvases]
    prompt = torch.zeros(len(leading), config.prompt_beside_canvas, dtype=torch.long)
    canvas = torch.zeros(count, config.canvas, dtype=torch.long)
    shown = torch.zeros(count, config.canvas, dtype=torch.long)
    hole = torch.zeros(count, config.canvas, dtype=torch.bool)
    targets = torch.zeros(count, config.supervised, dtype=torch.long)
    weight = torch.zeros(count, config.supervised)
    for index, row in enumerate(leading):
        prompt[index, : len(row.prompt)] = torch.from_numpy(row.prompt)
    for index, row in enumerate(rows):
        canvas[index, : len(row.canvas)] = torch.from_numpy(row.canvas)
        shown[index, : len(row.canvas)] = torch.from_numpy(row.shown)
        hole[index, : len(row.canvas)] = torch.from_numpy(row.hole)
        hole[index, len(row.canvas) :] = bool(row.hole.all())
        columns = np.flatnonzero((row.weight > 0) & row.hole)[: config.supervised]
        targets[index, : len(columns)] = torch.from_numpy(columns)
        weight[index, : len(columns)] = torch.from_numpy(row.weight[columns])
    prompt_length = torch.tensor([len(row.prompt) for row in leading])
    canvas_length = torch.tensor([len(row.canvas) for row in rows])
    return DiffusionBatch(prompt, prompt_length, canvas, shown, canvas_length, hole, targets, weight)


def make_diffusion_batch(
    files: TokenFiles, size: int, config: LayoutConfig, rng: np.random.Generator
) -> DiffusionBatch:
    windows = [diffusion_rows(files.random_file(rng, config), config, rng, files.slips) for _ in range(size)]
    return diffusion_batch([row for window in windows for row in window], config)


def make_causal_batch(
    files: TokenFiles, size: int, config: LayoutConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    tokens = torch.zeros(size, config.prompt + config.canvas, dtype=torch.long)
    weight = torch.zeros(size, config.prompt + config.canvas)
    for index in range(size):
        row, row_weight = causal_row(files.random_file(rng, config), config, rng)
        tokens[index, : len(row)] = torch.from_numpy(row)
        weight[index, : len(row)] = torch.from_numpy(row_weight)
    return tokens, weight


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batch of a step. The same step gives the same batch in every process.

    files: (training files, validation files); the methods' `split` is an index into it. rows: windows per batch. In
    data-parallel training each `rank` draws its own batches.
    """

    files: tuple[TokenFiles, TokenFiles]
    layout: LayoutConfig
    rows: int
    seed: int
    rank: int = 0

    def causal(self, step: int, split: int = 0) -> tuple[Tensor, Tensor]:
        """tokens [rows, prompt + canvas], weight [rows, prompt + canvas]."""
        return make_causal_batch(self.files[split], self.rows, self.layout, self._rng(step, split))

    def diffusion(self, step: int, split: int = 0) -> DiffusionBatch:
        return make_diffusion_batch(self.files[split], self.rows, self.layout, self._rng(step, split))

    def _rng(self, step: int, split: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, split, step, self.rank))


class _Steps(Dataset[Any]):
    """make(step) as a Dataset. Returns an error as an item, since DataLoader would wrap its message in a traceback."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __getitem__(self, step: int) -> Any:
        try:
            return self.make(step)
        except Exception as error:  # noqa: BLE001 - raised in the consumer
            return error


def _leave_signals_to_the_trainer(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def pinned(batch: Any) -> Any:
    """The batch in page-locked memory, from which copies to a GPU run asynchronously."""
    if isinstance(batch, DiffusionBatch):
        return DiffusionBatch(**{name: tensor.pin_memory() for name, tensor in vars(batch).items()})
    return tuple(tensor.pin_memory() for tensor in batch)


def in_background(
    make: Callable[[int], Any], first: int, workers: int = 0, pin: bool = False, ahead: int = 4
) -> Iterator[Any]:
    """make(first), make(first + 1), … in order, computed ahead. Raises the errors of `make`.

    workers: processes that call `make`, which must be picklable; 0 for a thread. pin: put batches of tensors into
    page-locked memory if there is a GPU. Closing or dropping the iterator ends the thread and the processes.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()
    pin = pin and torch.cuda.is_available()
    steps = _Steps(make)
    items: Iterator[Any] = map(steps.__getitem__, count(first))
    if workers:
        loader = DataLoader(
            steps,
            batch_size=None,
            sampler=count(first),
            num_workers=workers,
            worker_init_fn=_leave_signals_to_the_trainer,
        )
        items = iter(loader)

    def offer(item: Any) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            while not stopped.is_set():
                item = next(items)
                offer(pinned(item) if pin and not isinstance(item, Exception) else item)
        except Exception as error:  # noqa: BLE001 - a worker died; raised in the consumer
            offer(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
        items = iter(())  # the workers end with the iterator over them

"""A synthetic file of tokens, and windows of it."""

from __future__ import annotations

import numpy as np

from train.data import diffusion_batch
from train.layout import FileTokens, LayoutConfig, diffusion_rows
from train.objective import DiffusionBatch

NEWLINE, PYTHON = 40, 17
SMALL = LayoutConfig(prompt=48, canvas=32, far_suffix=8, header=8, supervised=16, max_holes=2)


def source(lines: int = 60, width: int = 8) -> FileTokens:
    """Lines of increasing tokens, each after a newline token. Every fifth line is a statement, every tenth starts a
    block of two lines."""
    tokens = np.array([(NEWLINE if i % width == 0 else 1000 + i) for i in range(lines * width)], dtype=np.int64)
    statements = [(i * width, (i + 1) * width, 2) for i in range(0, lines, 5)]
    blocks = [(i * width, (i + 2) * width, 3) for i in range(0, lines - 1, 10)]
    spans = np.array(sorted(statements + blocks), dtype=np.int64)
    return FileTokens(tokens, np.flatnonzero(tokens == NEWLINE), spans, PYTHON)


def batch_of(rows: int = 6, seed: int = 0) -> DiffusionBatch:
    rng = np.random.default_rng(seed)
    return diffusion_batch([diffusion_rows(source(), SMALL, rng)[0] for _ in range(rows)], SMALL)

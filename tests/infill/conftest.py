"""Tiny models: one thread is fastest, and spares the other processes of a busy machine."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Anew for every test, since loading a model sets the threads."""
    torch.set_num_threads(1)

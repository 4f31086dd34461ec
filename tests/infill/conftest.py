"""One thread: the fastest for tiny models."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """For every test, since loading a model sets the number of threads."""
    torch.set_num_threads(1)

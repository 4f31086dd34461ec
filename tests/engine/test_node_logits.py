"""What is kept of the logits of many nodes, and that dropped ones come back the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine import node_logits
from engine.errors import NotFiniteError
from engine.node_logits import NodeLogits

ROWS, HIDDEN, VOCAB = 4, 3, 50
WEIGHT = torch.randn(VOCAB, HIDDEN, generator=torch.Generator().manual_seed(0))
STATES = torch.randn(10 * ROWS, HIDDEN, generator=torch.Generator().manual_seed(1))
BLOCK_BYTES = ROWS * VOCAB * 4


def filled(calls: list[int], first: int = 0) -> NodeLogits:
    """The logits of all STATES, added ROWS at a time; the nodes begin with `first`. calls: rows of each product."""

    def head(hidden: Tensor) -> Tensor:
        """A part of a larger product, as that of `engine.ops.int8_linear` is."""
        calls.append(len(hidden))
        return torch.cat((hidden, STATES)).matmul(WEIGHT.T)[: len(hidden)]

    found = NodeLogits(head)
    for start in range(0, len(STATES), ROWS):
        found.add(first + start, STATES[start : start + ROWS])
        assert found.bytes <= max(node_logits.KEPT_BYTES, BLOCK_BYTES)
    return found


@pytest.mark.parametrize("kept", [0, BLOCK_BYTES, 3 * BLOCK_BYTES + 1, 100 * BLOCK_BYTES])
def test_dropped_logits_are_computed_again(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_logits, "KEPT_BYTES", kept)
    calls = list[int]()
    found = filled(calls, first=7)
    computed = len(calls)
    for node in (*range(len(STATES)), *reversed(range(len(STATES)))):
        logits, normalizer = found.row(7 + node)
        torch.testing.assert_close(logits, STATES[node] @ WEIGHT.T)
        torch.testing.assert_close(normalizer, logits.logsumexp(-1))
        assert found.bytes <= max(kept, BLOCK_BYTES)
    again = len(calls) - computed
    assert again == 0 if kept > 10 * BLOCK_BYTES else 10 <= again <= 20, "a block at a time"


def test_those_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_logits, "KEPT_BYTES", 2 * BLOCK_BYTES)
    calls = list[int]()
    found = filled(calls)
    computed = len(calls)
    for node in (0, 1, len(STATES) - 1, 0, len(STATES) - 1):
        found.row(node)
    assert calls[computed:] == [ROWS]


def test_forgotten_nodes_may_be_added_again() -> None:
    found = filled([])
    found.truncate(ROWS)
    assert found.bytes == BLOCK_BYTES
    found.add(ROWS, STATES[:ROWS])
    torch.testing.assert_close(found.row(ROWS)[0], STATES[0] @ WEIGHT.T)
    found.truncate(0)
    assert found.bytes == 0


def test_logits_that_are_not_numbers_are_an_error_and_leave_nothing() -> None:
    found = NodeLogits(lambda hidden: hidden @ WEIGHT.T)
    found.add(0, STATES[:ROWS])
    with pytest.raises(NotFiniteError):
        found.add(ROWS, torch.full((ROWS, HIDDEN), torch.nan))
    assert found.bytes == BLOCK_BYTES

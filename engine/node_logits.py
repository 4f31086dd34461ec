"""The logits after the nodes of a token tree; a bounded number of bytes is kept.

Those of one node take half a megabyte, too much for a long continuation and all guesses at it. Hidden states take a
hundredth, so logits that were dropped are computed from them again. Must not know tokens, or how nodes are connected.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable

import torch
from torch import Tensor

from engine.errors import NotFiniteError

HEAD_ROWS = 128  # most nodes whose logits are computed at once
KEPT_BYTES = 96 << 20  # of logits, unless those of HEAD_ROWS nodes take more


class NodeLogits:
    """head: logits [nodes, vocab] in fp32 of hidden states [nodes, hidden]."""

    def __init__(self, head: Callable[[Tensor], Tensor]) -> None:
        self._head = head
        self._firsts: list[int] = []  # the first node of each block
        self._hidden: list[Tensor] = []  # of each block
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}  # logits and normalizers by block, the last used at the end

    @property
    def bytes(self) -> int:
        """Of the memory that the kept logits hold."""
        return sum(logits.untyped_storage().nbytes() for logits, _ in self._kept.values())

    def add(self, first: int, hidden: Tensor) -> None:
        """hidden: [at most HEAD_ROWS nodes, hidden] of the nodes from `first` on, which follow all others.

        Raises NotFiniteError if their logits are not numbers.
        """
        self._keep(len(self._firsts), self._compute(hidden))
        self._firsts.append(first)
        self._hidden.append(hidden)

    def row(self, node: int) -> tuple[Tensor, Tensor]:
        """The logits [vocab] after a node that was added, and the logarithm of their normalizer []."""
        block = bisect_right(self._firsts, node) - 1
        logits, normalizers = self._kept.pop(block) if block in self._kept else self._compute(self._hidden[block])
        self._keep(block, (logits, normalizers))
        index = node - self._firsts[block]
        return logits[index], normalizers[index]

    def truncate(self, node: int) -> None:
        """Forgets all blocks that begin with `node` or a later one."""
        blocks = bisect_left(self._firsts, node)
        del self._firsts[blocks:], self._hidden[blocks:]
        self._kept = {block: kept for block, kept in self._kept.items() if block < blocks}

    @torch.inference_mode()
    def _compute(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._head(hidden)
        normalizers = torch.logsumexp(logits, dim=-1)
        if not bool(normalizers.isfinite().all()):
            raise NotFiniteError
        is_part = logits.untyped_storage().nbytes() > logits.nbytes  # of a product that was padded to more rows
        return logits.clone() if is_part else logits, normalizers

    def _keep(self, block: int, computed: tuple[Tensor, Tensor]) -> None:
        """Drops those that were used least recently if there are too many."""
        self._kept[block] = computed
        while len(self._kept) > 1 and self.bytes > KEPT_BYTES:
            del self._kept[next(iter(self._kept))]

"""A token tree over a long text: keeps hidden states, and computes logits only where they are asked for.

The logits of a token take half a megabyte, so those of a whole text would not fit. Must not know text.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import torch
from torch import Tensor

from engine.errors import NotFiniteError, Stop, leave_if
from engine.key_values import KeyValues
from engine.memory import CausalPass
from engine.node_logits import HEAD_ROWS
from engine.token_tree import TokenTree

CHUNK = 128  # tokens of a pass on a CPU that may be cancelled, for which something more urgent may wait


class TextTree(TokenTree):
    """See `TokenTree`; only `read` and `scores` are available."""

    def __init__(self, model: CausalPass, kv: KeyValues, trunk: Sequence[int], stop: Stop | None = None) -> None:
        super().__init__(model, kv, trunk, stop)
        self._hidden: list[Tensor] = []  # [hidden] per node

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._hidden.clear()

    def __len__(self) -> int:
        """The number of nodes."""
        return len(self._tokens)

    def _chunk(self) -> int:
        return CHUNK if self.kv.device.type == "cpu" else super()._chunk()

    def _keep(self, hidden: Tensor, first: int, end: int) -> None:
        self._hidden += hidden.unbind()

    @torch.inference_mode()
    def scores(self, asked: Sequence[tuple[Sequence[int], int, Sequence[int]]]) -> list[list[float]]:
        """For each (branch, length, tokens): log p of each of `tokens`, in nats, directly after the first `length`
        tokens of `branch`, which must have been read."""
        paths = {id(branch): self._read_path(branch) for branch, _, _ in asked}
        by_node: dict[int, list[int]] = {}
        for index, (branch, length, _) in enumerate(asked):
            by_node.setdefault(paths[id(branch)][length], []).append(index)
        found: list[list[float]] = [[] for _ in asked]
        nodes = [*by_node]
        for start in range(0, len(nodes), HEAD_ROWS):
            leave_if(self.stop)
            some = nodes[start : start + HEAD_ROWS]
            logits = self.model.logits(torch.stack([self._hidden[node] for node in some]))
            normalizers = torch.logsumexp(logits, dim=-1)
            if not bool(normalizers.isfinite().all()):
                raise NotFiniteError
            for row, node in enumerate(some):
                for index in by_node[node]:
                    tokens = torch.tensor(asked[index][2], device=logits.device)
                    found[index] = (logits[row, tokens] - normalizers[row]).tolist()
        return found

    def _read_path(self, branch: Sequence[int]) -> list[int]:
        """The nodes of the trunk's last token and of the tokens of `branch` that were read."""
        path = [self._top]
        for token in branch:
            node = self._nodes.get((path[-1], token))
            if node is None:
                break
            path.append(node)
        return path

    @torch.inference_mode()
    def branch_scores(self, asked: Sequence[tuple[Sequence[int], int]]) -> list[list[float]]:
        """For each (branch, start): log p of each of its tokens from index `start` on, given those before it."""
        flat = [(branch, at, branch[at : at + 1]) for branch, start in asked for at in range(start, len(branch))]
        scores = iter(self.scores(flat))
        return [[next(scores)[0] for _ in range(start, len(branch))] for branch, start in asked]

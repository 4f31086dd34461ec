"""Evaluates several continuations of one prompt with the causal encoder, each token once.

Continuations with a common beginning share it: together they form a tree. All new nodes are encoded in one pass, in
which each token sees only the prompt and its own ancestors (the token tree of SpecInfer, arXiv 2305.09781). Their keys
are stored behind the prompt's while the tree is in use. Must not know text, or what the results are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from engine.errors import InputError, Stop, is_memory_error, leave_if
from engine.key_values import KeyValues
from engine.memory import CausalPass, Masks
from engine.node_logits import HEAD_ROWS, NodeLogits
from engine.prefix_cache import stoppable_chunk

ROOT = -1
MOST_NODES = 1 << 14  # memory and time grow with the square of their number


class TokenTree:
    """After the prompt in `kv` come the given tokens of `trunk`, then the branches that are read.

    A context: at its end `kv` is as before, and what the tree kept is dropped. stop: called before every pass; if it
    returns True, Cancelled is raised. Raises InputError before it has more than MOST_NODES nodes.
    """

    def __init__(self, model: CausalPass, kv: KeyValues, trunk: Sequence[int], stop: Stop | None = None) -> None:
        self.model, self.kv, self.stop = model, kv, stop
        self.past = kv.length
        self._nodes: dict[tuple[int, int], int] = {}  # by parent and token
        self._tokens: list[int] = []
        self._parents: list[int] = []
        self._depths: list[int] = []
        self._sees = np.zeros((64, 64), dtype=bool)  # [node, itself and its ancestors]
        self._read_count = 0  # nodes that were read, the first ones
        self._rows = NodeLogits(model.logits)  # of the last node of the trunk, and of those behind it that were read
        self._scores: dict[int, float] = {}  # log p of a node given its parent, if that was read
        self._top = ROOT
        for token in trunk:
            self._top = self._add(self._top, token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kv.truncate(self.past)
        self._rows.truncate(0)
        self._sees = self._sees[:0, :0].copy()

    @torch.inference_mode()
    def read(self, branches: Sequence[Sequence[int]]) -> None:
        """Encodes the new nodes of `branches` (ids after the trunk): in one pass, or in several if it may be
        cancelled."""
        for branch in branches:
            node = self._top
            for token in branch:
                known = self._nodes.get((node, token))
                node = self._add(node, token) if known is None else known
        end, size = len(self._tokens), len(self._tokens) if self.stop is None else self._chunk()
        for first in range(self._read_count, end, max(1, size)):
            leave_if(self.stop)
            self._read(first, min(end, first + size))

    def _chunk(self) -> int:
        """Tokens of a pass that may be cancelled."""
        return stoppable_chunk(self.kv.device)

    def _read(self, first: int, end: int) -> None:
        """The nodes from `first` up to `end`, whose ancestors are read or among them; in halves if memory does not
        suffice."""
        before, middle = self.kv.length, (first + end) // 2
        try:
            return self._pass(first, end)
        except Exception as error:
            if middle == first or not is_memory_error(error):
                raise
        self.kv.truncate(before)
        self._rows.truncate(first)
        self._read(first, middle)
        self._read(middle, end)

    def _pass(self, first: int, end: int) -> None:
        device = self.kv.device
        entry = torch.tensor([self._tokens[first:end]], device=device)
        memory = _TreeMemory(self.kv, self.past, np.asarray(self._depths[:end]), self._sees[:end, :end])
        hidden = self.model.encode(entry, memory.positions(), memory.masks(), memory)[0]
        self.kv.length += end - first
        self._keep(hidden, first, end)
        self._read_count = end

    def _keep(self, hidden: Tensor, first: int, end: int) -> None:
        """Keeps what later calls need of the nodes from `first` up to `end`. hidden: [their number, hidden]."""
        for start in range(max(first, min(self._top, end)), end, HEAD_ROWS):
            stop = min(end, start + HEAD_ROWS)
            self._rows.add(start, hidden[start - first : stop - first])
            self._score(range(first, len(self._tokens)), stop)

    def _score(self, nodes: Sequence[int], end: int) -> None:
        """Remembers log p of those of `nodes` whose parents were read, up to `end`, while their logits are kept."""
        known = range(max(0, self._top), end)
        children = [node for node in nodes if self._parents[node] in known and node not in self._scores]
        rows = (self._rows.row(self._parents[node]) for node in children)
        scores = [logits[self._tokens[node]] - norm for node, (logits, norm) in zip(children, rows, strict=True)]
        if scores:
            self._scores |= zip(children, torch.stack(scores).tolist(), strict=True)

    def has_read(self, branch: Sequence[int]) -> bool:
        """Whether the logits after `branch` need no further pass."""
        node = self._top
        for token in branch:
            known = self._nodes.get((node, token))
            if known is None:
                return False
            node = known
        return node < self._read_count

    def logits(self, branch: Sequence[int]) -> Tensor:
        """[vocab] in fp32, for the token that follows `branch`; encodes it if necessary. Must not be changed."""
        self.read([branch])
        return self._rows.row(self._last(branch))[0]

    def log_probability(self, branch: Sequence[int], token: int) -> float:
        """log p of `token` after `branch`, in nats."""
        self.read([branch])
        return self._log_probability(self._last(branch), token)

    def log_probabilities(self, branch: Sequence[int]) -> Tensor:
        """log p of every token of `branch` given those before it: [its length] on the CPU, in nats.

        Encodes all but its last token if necessary. Without a trunk nothing here predicts the first token, and its
        entry is 0.
        """
        if not branch:
            return torch.zeros(0)
        self.read([branch[:-1]])
        pairs = zip(self._path(branch[:-1]), branch, strict=True)
        return torch.tensor([0.0 if node == ROOT else self._log_probability(node, token) for node, token in pairs])

    def _log_probability(self, node: int, token: int) -> float:
        """log p of `token` after a node that was read."""
        score = self._scores.get(self._nodes.get((node, token), ROOT))
        if score is not None:
            return score
        logits, normalizer = self._rows.row(node)
        return float(logits[token] - normalizer)

    def _last(self, branch: Sequence[int]) -> int:
        node = self._path(branch)[-1]
        assert node != ROOT, "no token precedes the first one"
        return node

    def _path(self, branch: Sequence[int]) -> list[int]:
        """The nodes of the trunk's last token and of all tokens of `branch`."""
        path = [self._top]
        for token in branch:
            path.append(self._nodes[path[-1], token])
        return path

    def _add(self, parent: int, token: int) -> int:
        node = len(self._tokens)
        if node == MOST_NODES:
            raise InputError(f"The candidates have more than {MOST_NODES:,} tokens; ask for fewer or shorter ones.")
        if node == len(self._sees):
            self._sees = np.pad(self._sees, (0, node))
        if parent != ROOT:
            self._sees[node] = self._sees[parent]
        self._sees[node, node] = True
        self._nodes[parent, token] = node
        self._tokens.append(token)
        self._parents.append(parent)
        self._depths.append(0 if parent == ROOT else self._depths[parent] + 1)
        return node


class _TreeMemory:
    """Memory of a pass over the last nodes of a tree. past: prompt positions; depths [nodes]; sees [nodes, nodes]."""

    def __init__(self, kv: KeyValues, past: int, depths: np.ndarray, sees: np.ndarray) -> None:
        self.kv, self.new = kv, past + len(depths) - kv.length
        kv.reserve(self.new)
        self.queries = past + depths[-self.new :]
        keys = np.concatenate((np.arange(past), past + depths))
        visible = np.concatenate((np.ones((self.new, past), dtype=bool), sees[-self.new :]), axis=1)
        window = kv.config.sliding_window
        visible_nearby = visible & (keys > self.queries[:, None] - window)
        self.first = min(past, max(0, int(self.queries.min()) - window + 1))  # seen by a sliding layer
        self._masks: Masks = {
            "full_attention": self._mask(visible),
            "sliding_attention": self._mask(visible_nearby[:, self.first :]),
        }

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first if self.kv.config.layers[layer].is_sliding else 0
        return self.kv.write(layer, key, value, first, self.kv.length + self.new)

    def positions(self) -> Tensor:
        return torch.from_numpy(self.queries)[None].to(self.kv.device)

    def masks(self) -> Masks:
        return self._masks

    def _mask(self, visible: np.ndarray) -> Tensor | None:
        return None if visible.all() else torch.from_numpy(visible).to(self.kv.device)

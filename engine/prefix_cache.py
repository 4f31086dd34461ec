"""Keys and values of prompts, kept between requests: a prompt that shares a prefix encodes only the rest.

Bounded in bytes; the least recently used entry goes first, and all that nobody uses where the memory runs out. Knows
nothing of canvases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from engine.errors import InputError, Stop, is_memory_error, leave_if
from engine.key_values import KeyValues, PromptMemory
from engine.models.text_model import TextModel

ENCODE_CHUNK = 1024  # tokens of a pass
WATCHED_CHUNK = 256  # the same where a caller may ask to stop: some 20 ms of the pocket model on one core
LEAST_CHUNK = 16  # the same where the memory does not suffice for more
LIMIT_SHARE, LEAST_LIMIT = 1 / 8, 128 << 20  # bytes
KEEP_SHARE = 0.9  # an entry is cut back in place only if this share of it stays in use; else its front is copied


@dataclass
class CachedPrompt:
    """`kv` holds the keys of `tokens`. While `users` is above 0 the entry must not be changed."""

    tokens: np.ndarray
    kv: KeyValues
    users: int = 0
    used_at: float = field(default_factory=time.monotonic)


@dataclass
class Lease:
    """A prompt that stands encoded while the lease is held. `encoded`: tokens that had to be read now."""

    prompt: CachedPrompt
    encoded: int
    release: Callable[[], None]

    @property
    def kv(self) -> KeyValues:
        return self.prompt.kv


class PrefixCache:
    """All prompts of one model. `encoded_tokens` counts what was read since the start.

    limit_bytes: of what is kept; without it LIMIT_SHARE of what the weights take, and LEAST_LIMIT at least.
    """

    def __init__(self, model: TextModel, limit_bytes: int | None = None) -> None:
        weight = model.embed_tokens.weight
        self.model = model
        self.limit_bytes = (
            max(LEAST_LIMIT, int(LIMIT_SHARE * model.weight_bytes)) if limit_bytes is None else limit_bytes
        )
        self.device, self.dtype = weight.device, model.kv_dtype
        self.entries: list[CachedPrompt] = []
        self.encoded_tokens = 0

    def acquire(self, tokens: Sequence[int], stop: Stop | None = None) -> Lease:
        """Encodes what is not yet encoded of `tokens` (at least one); call `release` of the lease when done.

        stop: asked between chunks; where it answers True, what is encoded is kept and Cancelled raised.
        """
        wanted = np.asarray(tokens, dtype=np.int64)
        limit = self.model.config.max_positions
        if not 0 < len(wanted) <= limit:
            raise InputError(f"The prompt has {len(wanted)} tokens; the model takes 1 to {limit}, so show it less.")
        entry = self._entry_for(wanted)
        entry.users += 1
        entry.used_at = time.monotonic()
        before = entry.kv.length
        try:
            self._encode(entry, wanted, stop)
        except BaseException:
            entry.users -= 1
            self._evict()
            raise
        self._evict()

        def release() -> None:
            entry.users -= 1

        return Lease(entry, entry.kv.length - before, release)

    @contextmanager
    def encoded(self, tokens: Sequence[int], stop: Stop | None = None) -> Iterator[Lease]:
        """`acquire` as a context."""
        lease = self.acquire(tokens, stop)
        try:
            yield lease
        finally:
            lease.release()

    def clear(self) -> None:
        """Gives up all prompts that nobody uses."""
        self.entries = [entry for entry in self.entries if entry.users]

    def _entry_for(self, wanted: np.ndarray) -> CachedPrompt:
        """An entry that holds a prefix of `wanted` and nothing else; of those that share as much, one that need not be
        cut back or copied."""
        shared, *_, best = max(
            (
                (shared := _common_prefix(entry.tokens, wanted), not entry.users, shared == len(entry.tokens), index)
                for index, entry in enumerate(self.entries)
            ),
            default=(0, True, True, -1),
        )
        if shared == 0:
            return self._add(CachedPrompt(wanted[:0], KeyValues(self.model.config, self.device, self.dtype)))
        entry = self.entries[best]
        if shared == len(entry.tokens) and (not entry.users or shared == len(wanted)):
            return entry
        if entry.users or shared < KEEP_SHARE * len(entry.tokens):
            return self._add(CachedPrompt(wanted[:shared], entry.kv.copy(shared)))
        entry.kv.truncate(shared)
        entry.tokens = entry.tokens[:shared]
        return entry

    def _add(self, entry: CachedPrompt) -> CachedPrompt:
        self.entries.append(entry)
        return entry

    @torch.inference_mode()
    def _encode(self, entry: CachedPrompt, wanted: np.ndarray, stop: Stop | None) -> None:
        size = ENCODE_CHUNK if stop is None else min(ENCODE_CHUNK, WATCHED_CHUNK)
        while entry.kv.length < len(wanted):
            leave_if(stop)
            try:
                self._encode_chunk(entry, wanted[: entry.kv.length + size])
            except Exception as error:
                size = min(size, len(wanted) - entry.kv.length)
                if size <= LEAST_CHUNK or not is_memory_error(error):
                    raise
                size //= 2
                self.clear()

    def _encode_chunk(self, entry: CachedPrompt, wanted: np.ndarray) -> None:
        """In one pass."""
        chunk = torch.from_numpy(wanted[entry.kv.length :])[None].to(self.device)
        memory = PromptMemory(entry.kv, chunk.shape[1])
        self.model.encode(chunk, memory.positions(), memory.masks(), memory)
        memory.commit()
        entry.tokens = wanted
        self.encoded_tokens += chunk.shape[1]

    def _evict(self) -> None:
        self.entries = [entry for entry in self.entries if entry.users or len(entry.tokens)]
        idle = sorted((entry for entry in self.entries if not entry.users), key=lambda entry: entry.used_at)
        size = sum(entry.kv.bytes for entry in self.entries)
        for entry in idle:
            if size <= self.limit_bytes:
                return
            size -= entry.kv.bytes
            self.entries = [other for other in self.entries if other is not entry]


def _common_prefix(first: np.ndarray, second: np.ndarray) -> int:
    length = min(len(first), len(second))
    differing = np.flatnonzero(first[:length] != second[:length])
    return int(differing[0]) if len(differing) else length

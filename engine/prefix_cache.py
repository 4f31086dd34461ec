"""Caches keys and values of prompts between requests: a prompt that shares a prefix encodes only the rest.

Bounded in bytes: the least recently used entry is evicted first, and all unused ones if memory runs out. Must not know
canvases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from engine.device import available_memory
from engine.errors import InputError, Stop, is_memory_error, leave_if
from engine.key_values import KeyValues, PromptMemory
from engine.memory import CausalModel
from engine.memory_use import CONTEXT, key_bytes

ENCODE_CHUNK = 1024  # tokens per pass
STOPPABLE_CHUNK = 256  # on a CPU the same if a caller may cancel: about 20 ms of the pocket model on one core
LEAST_CHUNK = 16  # the same if memory does not suffice for more
LIMIT_SHARE, LEAST_LIMIT = 1 / 8, 128 << 20  # bytes
# An entry is truncated in place only if this share of it stays in use and few tokens are lost; otherwise its start is
# copied.
KEEP_SHARE, MOST_LOST = 0.9, 8


@dataclass
class CachedPrompt:
    """`kv` holds the keys and values of `tokens`. The entry must not change while `users` is above 0.

    exclusive: its only user may write behind the prompt.
    """

    tokens: np.ndarray
    kv: KeyValues
    users: int = 0
    exclusive: bool = False
    used_at: float = field(default_factory=time.monotonic)


@dataclass
class Lease:
    """A prompt that stays encoded until `release` is called. encoded: tokens that were encoded for this lease."""

    prompt: CachedPrompt
    encoded: int
    release: Callable[[], None]

    @property
    def kv(self) -> KeyValues:
        return self.prompt.kv


class PromptCache(Protocol):
    """Encodes prompts: `PrefixCache`, or one request's view of it."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def encoded(
        self, tokens: Sequence[int], stop: Stop | None = None, chunk: int | None = None
    ) -> AbstractContextManager[Lease]: ...


class PrefixCache:
    """The prompts of one model. `encoded_tokens` counts the tokens encoded since the start.

    limit_bytes: size of the cache; by default LIMIT_SHARE of the size of the weights, at most half of the free memory
    or what the longest prompt takes, and at least LEAST_LIMIT.
    """

    def __init__(self, model: CausalModel, limit_bytes: int | None = None) -> None:
        self.model = model
        context = key_bytes(model.config, min(CONTEXT, model.config.max_positions), model.kv_dtype.itemsize)
        room = max(context, available_memory(model.device) // 2)
        default = max(LEAST_LIMIT, min(int(LIMIT_SHARE * model.weight_bytes), room))
        self.limit_bytes = default if limit_bytes is None else limit_bytes
        self.device, self.dtype = model.device, model.kv_dtype
        self.entries: list[CachedPrompt] = []
        self.encoded_tokens = 0

    def acquire(
        self,
        tokens: Sequence[int],
        stop: Stop | None = None,
        exclusive: bool = False,
        chunk: int | None = None,
    ) -> Lease:
        """Encodes the part of `tokens` (at least one) that is not cached; release the lease when done.

        stop: called between chunks; if it returns True, the chunks encoded so far are kept and Cancelled is raised.
        exclusive: until the release nobody else gets this entry, so the caller may write behind the prompt.
        chunk: most tokens per pass; by default `stoppable_chunk` if there is a `stop`, else ENCODE_CHUNK.
        """
        prompt = np.asarray(tokens, dtype=np.int64)
        limit = self.model.config.max_positions
        if not 0 < len(prompt) <= limit:
            raise InputError(
                f"The prompt has {len(prompt)} tokens, but the model takes 1 to {limit}; shorten the prompt."
            )
        entry = self._entry_for(prompt)
        if entry.users and (exclusive or entry.exclusive):
            entry = self._add(CachedPrompt(entry.tokens, entry.kv.copy(len(entry.tokens))))
        entry.users += 1
        entry.used_at = time.monotonic()
        before = entry.kv.length
        try:
            self._encode(entry, prompt, stop, chunk)
        except BaseException:
            entry.users -= 1
            self._evict()
            raise
        entry.exclusive = exclusive
        self._evict()

        def release() -> None:
            entry.users -= 1
            entry.exclusive = False
            self._evict()  # the caller may have made it larger

        return Lease(entry, entry.kv.length - before, release)

    @contextmanager
    def encoded(self, tokens: Sequence[int], stop: Stop | None = None, chunk: int | None = None) -> Iterator[Lease]:
        """An exclusive `acquire` as a context."""
        lease = self.acquire(tokens, stop, exclusive=True, chunk=chunk)
        try:
            yield lease
        finally:
            lease.release()

    def clear(self) -> None:
        """Drops all unused prompts."""
        self.entries = [entry for entry in self.entries if entry.users]

    def _entry_for(self, prompt: np.ndarray) -> CachedPrompt:
        """An entry that holds a prefix of `prompt` and nothing else; if several share as much, preferably one that need
        not be truncated or copied."""
        shared, *_, best = max(
            (
                (shared := _common_prefix(entry.tokens, prompt), not entry.users, shared == len(entry.tokens), index)
                for index, entry in enumerate(self.entries)
            ),
            default=(0, True, True, -1),
        )
        if shared == 0:
            return self._add(CachedPrompt(prompt[:0], KeyValues(self.model.config, self.device, self.dtype)))
        entry = self.entries[best]
        if shared == len(entry.tokens) and (not entry.users or shared == len(prompt)):
            return entry
        if entry.users or shared < max(KEEP_SHARE * len(entry.tokens), len(entry.tokens) - MOST_LOST):
            return self._add(CachedPrompt(prompt[:shared], entry.kv.copy(shared)))
        entry.kv.truncate(shared)
        entry.tokens = entry.tokens[:shared]
        return entry

    def _add(self, entry: CachedPrompt) -> CachedPrompt:
        self.entries.append(entry)
        return entry

    @torch.inference_mode()
    def _encode(self, entry: CachedPrompt, prompt: np.ndarray, stop: Stop | None, chunk: int | None) -> None:
        size = min(ENCODE_CHUNK, chunk or (ENCODE_CHUNK if stop is None else stoppable_chunk(self.device)))
        while entry.kv.length < len(prompt):
            leave_if(stop)
            try:
                self._encode_chunk(entry, prompt[: entry.kv.length + size])
            except Exception as error:
                size = min(size, len(prompt) - entry.kv.length)
                if size <= LEAST_CHUNK or not is_memory_error(error):
                    raise
                size //= 2
                self.clear()

    def _encode_chunk(self, entry: CachedPrompt, prompt: np.ndarray) -> None:
        """Encodes the rest of `prompt` in one pass."""
        chunk = torch.from_numpy(prompt[entry.kv.length :])[None].to(self.device)
        memory = PromptMemory(entry.kv, chunk.shape[1])
        self.model.encode(chunk, memory.positions(), memory.masks(), memory, True)  # keys only
        memory.commit()
        entry.tokens = prompt
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


def stoppable_chunk(device: torch.device) -> int:
    """Tokens per pass if a caller may cancel. A pass on a GPU reads the weights for any number of tokens, so few passes
    with many tokens are best, and one takes some 30 ms."""
    return STOPPABLE_CHUNK if device.type == "cpu" else ENCODE_CHUNK


def _common_prefix(first: np.ndarray, second: np.ndarray) -> int:
    length = min(len(first), len(second))
    differing = np.flatnonzero(first[:length] != second[:length])
    return int(differing[0]) if len(differing) else length

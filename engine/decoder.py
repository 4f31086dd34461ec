"""A causal model and its prompt cache: all that decoding token by token needs.

`engine.denoiser.Denoiser` adds the bidirectional passes. Not thread-safe: one caller at a time. Knows nothing of text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from engine.errors import is_memory_error
from engine.memory import CausalModel, CausalPass
from engine.prefix_cache import PrefixCache, PromptCache

T = TypeVar("T")
log = logging.getLogger(__name__)


class CausalDecoder(Protocol):
    """What a request needs to decode: a `Decoder`, or one request's view of it."""

    @property
    def model(self) -> CausalPass: ...

    @property
    def cache(self) -> PromptCache: ...


class Decoder:
    """See the module."""

    def __init__(self, model: CausalModel, cache: PrefixCache | None = None) -> None:
        self.model = model
        self.cache = cache if cache is not None else PrefixCache(model)
        self.device = model.device

    def retry_without_cache(self, work: Callable[[], T]) -> T:
        """Returns what `work` returns; if memory runs out, drops all unused prompts and calls it once more."""
        try:
            return work()
        except Exception as error:
            if not is_memory_error(error):
                raise
            log.warning("The memory of %s ran out; dropping unused prompts.", self.device)
            error.__traceback__ = None  # its frames hold intermediate results
        self.release()
        return work()

    def release(self) -> None:
        """Drops everything that can be made again, after memory ran out."""
        self.forget()

    def forget(self) -> None:
        """Drops unused prompts, and returns their memory to the device."""
        self.cache.clear()
        torch.cuda.empty_cache()

"""The errors a user may see. Each message is one sentence that says what is wrong and what to do.

Must not know who shows them: the command line maps classes to exit codes, the editor to messages.
"""

from __future__ import annotations

from collections.abc import Callable

Stop = Callable[[], bool]
_OUT_OF_MEMORY = (
    "can't allocate memory",  # PyTorch's allocator for a CPU
    "could not create a primitive",  # oneDNN
    "backend out of memory",  # MPS
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class GessoError(Exception):
    """Base of every error whose message is meant for the user."""


class ModelError(GessoError):
    """A model folder, its weights, the memory or the device cannot be used."""


class NotFiniteError(ModelError):
    """The model gave numbers that are none: there is no answer, rather than a wrong one."""

    def __init__(self) -> None:
        super().__init__(
            "The model gave numbers that are not finite, so there is no answer; check its weights with `gesso model "
            "verify`, or try another device or number type."
        )


class InputError(GessoError):
    """A file or a request cannot be used."""


class UsageError(GessoError):
    """The command was given flags or arguments that do not fit together."""


class Cancelled(GessoError):
    """Whoever asked wants no answer any more."""


def is_memory_error(error: BaseException) -> bool:
    """Of the system or of a device; by name, since not everyone who asks has imported torch, and by its words, since
    not every library has a class of its own for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def leave_if(stop: Stop | None) -> None:
    """Raises Cancelled where `stop` answers True. It is asked every few milliseconds, so it has to be cheap."""
    if stop is not None and stop():
        raise Cancelled("The request was cancelled; ask again if it is still wanted.")

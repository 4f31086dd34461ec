"""The errors a user may see. Each message is one sentence that says what is wrong and what to do.

Must not know who shows them: the command line maps classes to exit codes, the editor maps them to messages.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

Stop = Callable[[], bool]
MOST_MESSAGE, MESSAGE_END = 2000, 500  # characters of a message, and of its end
_OUT_OF_MEMORY = (
    "can't allocate memory",  # PyTorch's allocator for a CPU
    "could not create a primitive",  # oneDNN
    "backend out of memory",  # MPS
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class GessoError(Exception):
    """Base of every error whose message is meant for the user. The middle of a very long one is left out, since it may
    quote what a stranger's file holds."""

    def __init__(self, message: str = "") -> None:
        is_long = len(message) > MOST_MESSAGE
        super().__init__(f"{message[: MOST_MESSAGE - MESSAGE_END]} … {message[-MESSAGE_END:]}" if is_long else message)


class ModelError(GessoError):
    """A model folder, its weights, the memory or the device cannot be used."""


class NotFiniteError(ModelError):
    """The model produced NaN or infinity, so there is no result."""

    def __init__(self) -> None:
        super().__init__(
            "The model produced NaN or infinity; check its weights with `gesso model verify`, or try another device or "
            "number type."
        )


class InputError(GessoError):
    """A file or a request cannot be used."""


class UsageError(GessoError):
    """The command got flags or arguments that do not fit together."""


class Cancelled(GessoError):
    """The caller cancelled."""

    def __init__(self, message: str = "The request was cancelled; send it again if you still need the answer.") -> None:
        super().__init__(message)


def is_memory_error(error: BaseException) -> bool:
    """Whether memory of the system or of a device ran out.

    Compares the class name, because torch may not be imported, and the message, because some libraries have no class
    for it.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


@contextmanager
def panics_as(error: Callable[[BaseException], GessoError]) -> Iterator[None]:
    """Turns every exception into `error` of it, also a panic of a library in Rust, which is not an `Exception`."""
    try:
        yield
    except (GessoError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as reason:
        raise error(reason) from reason


def describe_error(error: BaseException) -> str:
    """The class of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def drop_locals(error: BaseException) -> None:
    """Drops the local variables of the finished frames that an error and its causes came through.

    An error that is stored refers to them, and often they refer to it, so that all the memory of a request would stay
    until the next full garbage collection. File and line stay.
    """
    found: list[BaseException] = []
    errors = [error]
    while errors:
        one = errors.pop()
        if one not in found:
            found.append(one)
            traceback.clear_frames(one.__traceback__)
            errors += [more for more in (one.__cause__, one.__context__) if more is not None]


def leave_if(stop: Stop | None) -> None:
    """Raises Cancelled if `stop` returns True. `stop` is called every few milliseconds, so it must be cheap."""
    if stop is not None and stop():
        raise Cancelled


def pacer(stop: Stop | None, calls: int = 32) -> Callable[[], None]:
    """For loops with many short rounds: a function that polls `stop` at every 32nd call, as `leave_if` does."""
    if stop is None:
        return lambda: None
    rounds = count(1)

    def leave_at_times() -> None:
        if next(rounds) % calls == 0:
            leave_if(stop)

    return leave_at_times

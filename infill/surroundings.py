"""The surroundings of a command: Ctrl-C, closed standard streams, and a working folder that was deleted.

Libraries may swallow a KeyboardInterrupt, as PyTorch does with one that comes while it imports NumPy. So the exception
is raised again until the command ends, and a command that was interrupted never ends as if it had not been. Standard
library alone. Must not know any command.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # exit code
AGAIN_S = 0.5  # until the exception is raised again; longer than the cleanup of a command
_interrupted, _is_reported, _has_working_folder = False, False, True


@contextmanager
def prepared(has_working_folder: bool = True) -> Iterator[None]:
    """Runs a command in the main thread. After Ctrl-C the process ends with exit code INTERRUPTED, also while it waits
    for its threads at the end. Once only the interpreter has to end, Ctrl-C has no effect.

    After Ctrl-C it does not wait for other threads, which may be in the middle of a request. An ignored SIGINT, as
    after `nohup`, stays ignored.
    """
    global _has_working_folder
    _has_working_folder = has_working_folder
    can_be_interrupted = signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None)
    try:
        if can_be_interrupted:
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGALRM, _interrupt)
            signal.signal(signal.SIGINT, _interrupt)
        _open_standard_streams()
        try:
            yield
        finally:
            if can_be_interrupted:
                signal.signal(signal.SIGINT, _end_interrupted)
    except BaseException:
        if not _interrupted:
            raise
        _end_interrupted()
    if _interrupted:
        _end_interrupted()


def was_interrupted() -> bool:
    """Whether Ctrl-C was pressed, even if a library swallowed the exception."""
    return _interrupted


def interrupt_is_reported() -> None:
    """For a command that has printed that it was stopped."""
    global _is_reported
    _is_reported = True


def has_working_folder() -> bool:
    """False if the command was started in a folder that was deleted. The process is in "/" then."""
    return _has_working_folder


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    raise KeyboardInterrupt


def end(code: int) -> NoReturn:
    """Ends the process without waiting for its threads; a library that still works on one may crash otherwise."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


def _end_interrupted(*_: object) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    if not _is_reported:
        with suppress(OSError):
            os.write(2, b"gesso: Stopped.\n")
    end(INTERRUPTED)


def _open_standard_streams() -> None:
    """Opens closed standard streams, so that no other file gets their numbers. Reading or writing them is then an
    OSError, except that messages to standard error are lost."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_WRONLY)  # gets the lowest free number
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))

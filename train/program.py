"""How the programs of `train` and `bench` report an error.

Imports nothing that a machine rented for training may lack.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from rich.console import Console

from engine.errors import GessoError

FAILED = 3  # exit code, as that of the `gesso` commands
Main = TypeVar("Main", bound=Callable[..., Any])


def reports_errors(main: Main) -> Main:
    """A main function whose GessoErrors become one sentence on standard error and exit code 3."""

    @functools.wraps(main)
    def guarded(*arguments: Any, **options: Any) -> Any:
        try:
            return main(*arguments, **options)
        except GessoError as error:
            Console(stderr=True, highlight=False, soft_wrap=True).print(str(error), style="red", markup=False)
            raise typer.Exit(FAILED) from None

    return guarded  # type: ignore[return-value]

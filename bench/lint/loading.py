"""Loads the linter of a model for measurements."""

from __future__ import annotations

from engine.errors import InputError
from infill.cli.support import load_completer
from infill.lint.linter import Linter
from infill.settings import Settings


def load_linter(model: str, threads: int) -> Linter:
    """Raises InputError if the model cannot judge."""
    linter = Linter(load_completer(Settings(model=model, threads=threads)))
    if linter.judge(None) is None:
        raise InputError(f"The model {model} cannot judge code; choose a code model, such as coder.")
    return linter

"""Loads the linter of a model for measurements."""

from __future__ import annotations

from engine.errors import InputError
from infill.cli.support import load_completer
from infill.lint.linter import Linter
from infill.settings import Settings


def load_linter(model: str, threads: int) -> Linter:
    """Raises InputError if the model has no thresholds."""
    linter = Linter(load_completer(Settings(model=model, threads=threads)))
    if not linter.can_lint:
        raise InputError(f"The model {model} has no lint thresholds; fit them with `python -m train.lint.thresholds`.")
    return linter

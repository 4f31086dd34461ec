"""From settings to a loaded model of whichever kind they name, and from a loaded model to its pipeline.

The only place that knows which kinds of models there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from infill.complete.causal_completion import CausalCompleter
from infill.complete.code_model import CodeModel, is_code_model
from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.model_store import concrete, resolve
from infill.settings import Settings

AnyModel = LoadedModel | CodeModel
AnyCompleter = Completer | CausalCompleter


def load_model(settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> AnyModel:
    """The model that `settings` name, in memory; raises ModelError, saying what to do."""
    settings = replace(settings, model=concrete(settings.model))
    kind = CodeModel if is_code_model(resolve(settings.model)) else LoadedModel
    return kind.load(settings, on_progress)


def make_completer(model: AnyModel, settings: Settings) -> AnyCompleter:
    """The pipeline that fills holes with `model`."""
    return CausalCompleter(model, settings) if isinstance(model, CodeModel) else Completer(model, settings)

"""A model in memory with everything stored beside it: loaded once, shared by all requests.

Must not know requests, nor how a hole is filled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from engine.canvas_loop import CanvasLoop
from engine.canvas_model import load_canvas_model
from engine.config import Sampling
from engine.device import choose_device, choose_dtype, set_threads
from engine.errors import ModelError
from engine.files import read_json_object
from infill.complete.confidence import Calibration
from infill.model_store import concrete, resolve
from infill.prompts.families import load_family
from infill.prompts.prompt import Family
from infill.request import Evidence
from infill.settings import Settings

MOST_WEIGHT = 1e6  # of a calibration


@dataclass(frozen=True)
class LoadedModel:
    """name: as the user gave it. sampling: the model's defaults. min_confidence: the stored threshold."""

    name: str
    denoiser: CanvasLoop[Any]
    family: Family
    sampling: Sampling
    calibration: Calibration = Calibration({})
    min_confidence: float = 0.0

    @property
    def decoder(self) -> CanvasLoop[Any]:
        """What the scheduler shares between requests."""
        return self.denoiser

    def with_decoder(self, decoder: CanvasLoop[Any]) -> LoadedModel:
        """The same model behind another denoiser: one request's view of it."""
        return replace(self, denoiser=decoder)

    @staticmethod
    def load(settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> LoadedModel:
        """Loads the model that `settings` name. on_progress: bytes loaded, bytes in total.

        Raises ModelError, saying what to do.
        """
        name = concrete(settings.model)
        folder = resolve(name)
        device = choose_device(settings.device)
        set_threads(settings.threads)
        dtype = choose_dtype(device, settings.dtype)
        model = load_canvas_model(
            folder, device, dtype, on_progress, settings.keys == "fp8", settings.exact, settings.self_conditioning
        )
        family = load_family(model.family, folder)
        family.tokens.check_fits(model.denoiser.config.vocab_size)
        return LoadedModel(name, model.denoiser, family, model.sampling, *stored_calibration(folder))


def stored_calibration(folder: Path) -> tuple[Calibration, float]:
    """The calibration and the threshold in the model's config.json; no weights and 0 if it has none."""
    file = folder / "config.json"
    try:
        gesso = read_json_object(file).get("gesso") or {}
        confidence = gesso.get("confidence") or {}
        stored = confidence.get("weights") or {}
        weights = {entry.name: float(stored[entry.name]) for entry in fields(Evidence) if entry.name in stored}
        intercept, least = float(confidence.get("intercept", 0.0)), float(gesso.get("min_confidence", 0.0))
        if not all(abs(number) <= MOST_WEIGHT for number in (*weights.values(), intercept, least)):
            raise ValueError("a number is too large")
        return Calibration(weights, intercept), least
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as reason:
        raise ModelError(f"{file} has no usable gesso.confidence ({reason}); fetch the model again.") from reason

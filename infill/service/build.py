"""From the settings of a service to its engine. Must not know HTTP, nor processes."""

from __future__ import annotations

from dataclasses import replace

from infill.backends.routes import Routes
from infill.engine_protocol import Engine, RequestCounts
from infill.service.fallback import FallbackEngine
from infill.service.model_engine import ModelEngine
from infill.service.retry import RetryEngine
from infill.settings import Settings


def build_engine(settings: Settings, batch: int | None, routes: Routes) -> Engine:
    """batch: most canvases in one step; None leaves it to the scheduler."""
    counts = RequestCounts()
    model = ModelEngine(settings, batch, counts)
    engine: Engine = model
    loaded = [model]
    if settings.fallback_model and settings.fallback_model != settings.model:
        fallback = ModelEngine(replace(settings, model=settings.fallback_model), batch, counts)
        engine, loaded = FallbackEngine(model, fallback), [model, fallback]
    if settings.retry_model and settings.retry_model != settings.model:
        second = next((one for one in loaded if one.settings.model == settings.retry_model), None)
        shared = second is not None
        second = second or ModelEngine(replace(settings, model=settings.retry_model), batch, counts)
        engine = RetryEngine(engine, second, shared)
    if routes.order:
        from infill.backends.build import members
        from infill.backends.router import BackendRouter
        from infill.service.routed import RoutedEngine

        engine = RoutedEngine(engine, routes, BackendRouter(members(routes)))
    return engine

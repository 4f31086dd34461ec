"""Which requests a service with routes answers itself."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from infill.backends.router import BackendRouter
from infill.backends.routes import Routes
from infill.engine_protocol import Engine, EngineRequest, RequestCounts
from infill.request import InfillRequest
from infill.service.routed import RoutedEngine
from tests.infill.fakes import request


class Local:
    """Reads 5 tokens of every prompt."""

    counts = RequestCounts()

    async def read_ahead(self, request: EngineRequest[InfillRequest]) -> int:
        return 5


@pytest.mark.parametrize(
    ("route", "local", "read"),
    [(("here",), False, 5), (("here", "big"), False, 5), (("big", "here"), False, 0), (("big", "here"), True, 5)],
)
def test_only_prompts_for_the_model_of_the_service_are_read_ahead(
    route: tuple[str, ...], local: bool, read: int
) -> None:
    engine = RoutedEngine(cast(Engine, Local()), Routes({"inline": route}, {}), BackendRouter({}))
    assert asyncio.run(engine.read_ahead(EngineRequest(request("x = §\n"), local=local))) == read

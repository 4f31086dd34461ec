"""Random requests made from the service's OpenAPI description: none may break it or leave memory behind.

GESSO_RANDOM_REQUESTS says how many; the figures in docs/service.md are of 10000.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from infill.service.client import ServiceClient
from infill.service.location import ServiceLocation, location_at, lock_holder
from infill.service.memory import TRIM_S
from infill.service.start import stop_service
from tests.infill.service.test_process import tiny_folder
from tests.ports import free_port
from tests.waiting import PATIENCE_S, until

REQUESTS = int(os.environ.get("GESSO_RANDOM_REQUESTS", "400"))
SHORT = """
from infill import engine_protocol
engine_protocol.INFILL_LIMIT_S = engine_protocol.LINT_LIMIT_S = 0.3
from infill.cli.main import main
main()
"""  # a service with a short time limit: a random model would write to the end of every canvas
GROWTH_MIB = 200  # that the first thousands of all kinds of texts may need; what leaks needs more
CONFORMS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ServiceLocation, str]]:
    """A service with a tiny model, and its address."""
    monkeypatch.setenv("GESSO_FALLBACK_MODEL", "")
    tiny_folder(tmp_path / "tiny")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="gesso-test-") as folder:
        location = location_at(Path(folder) / "s" / "gesso.sock")
        options = ("--model", str(tmp_path / "tiny"), "--port", str(port), "--threads", "1", "--idle-minutes", "5")
        ServiceClient(location, arguments=options, command=(sys.executable, "-c", SHORT, "serve")).connect()
        try:
            yield location, f"http://127.0.0.1:{port}"
        finally:
            stop_service(location)


@pytest.mark.slow
def test_no_random_request_breaks_the_service(served: tuple[ServiceLocation, str]) -> None:
    location, address = served
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    load_all_checks()
    wanted = [CHECKS.get_one(name) for name in CONFORMS]
    process, session = psutil.Process(lock_holder(location)), requests.Session()
    before, outcomes, slowest = process.memory_info().rss, Counter[str](), 0.0
    operations = [found.ok() for found in schema.get_all_operations()]
    posts = [one for one in operations if one.method == "post"]
    for operation in operations:
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if operation in posts else (GenerationMode.POSITIVE,)
        for mode in modes:
            left = REQUESTS // (len(posts) * len(modes)) if operation in posts else 1

            @seed(0)
            @settings(
                max_examples=left,
                suppress_health_check=list(HealthCheck),
                database=None,
                phases=(Phase.explicit, Phase.generate),
            )
            @given(operation.as_strategy(generation_mode=mode))
            def answered(case: Any) -> None:
                nonlocal slowest
                started = time.monotonic()
                response = case.call(session=session, timeout=PATIENCE_S)
                slowest = max(slowest, time.monotonic() - started)
                outcomes[f"{case.method} {case.operation.path} {response.status_code}"] += 1  # noqa: B023 - used at once
                case.validate_response(response, checks=wanted)

            answered()
    until(lambda: ServiceClient(location).health().pending == 0)
    time.sleep(TRIM_S + 2)

    def grown_mib() -> float:
        return (process.memory_info().rss - before) / 2**20

    print(*(f"{number:6} {outcome}" for outcome, number in sorted(outcomes.items())), sep="\n")
    memory = f"{before / 2**20:.0f} MiB and {grown_mib():.0f} more"
    print(f"{sum(outcomes.values())} requests; slowest {slowest:.1f} s; {memory}")
    assert sum(outcomes.values()) > 0.9 * REQUESTS
    assert ServiceClient(location).health().status == "ok"
    until(lambda: grown_mib() < GROWTH_MIB, grown_mib)

"""A suggestion whose beginning is shown before the model has written the rest, over the real transport."""

from __future__ import annotations

from pathlib import Path

from tests.gate import Gate
from tests.lsp.client import MODERN, ROOT, Client

SERVER = (str(ROOT / "tests" / "lsp" / "growing_server.py"),)


def test_the_client_is_told_and_asks_again(environment: dict[str, str], tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    client = Client({**environment, **gate.environment}, server=SERVER)
    try:
        client.initialize(MODERN, settings={"gesso": {}, "extendsSuggestions": True})
        client.wait_until_ready()
        uri = (tmp_path / "a.py").as_uri()
        client.open(uri, "total = ")

        def suggested() -> list[str]:
            return [one["insertText"] for one in client.inline(uri, 0, 8)]

        assert suggested() == ["first"]
        gate.open()
        client.wait(lambda: any(one["method"] == "gesso/suggestionExtended" for one in client.received))
        assert suggested() == ["first + second"]
    finally:
        client.close()

"""The offer of the code model over the real transport: asked once, downloaded with progress, used without a restart."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lsp import model_offer
from tests.infill.local_hub import Hub, local_hub
from tests.lsp.client import MODERN, ROOT, Client
from tests.lsp.small_coder import CONTENT, MIB, SMALL

ASKS = {**MODERN, "window": {"workDoneProgress": True, "showMessage": {}}}
SERVER = (str(ROOT / "tests" / "lsp" / "scripted_server.py"),)
FIRST = 4 * MIB  # bytes that the hub sends at once
Start = Callable[..., Client]


pytestmark = pytest.mark.slow


@pytest.fixture
def source() -> Iterator[Hub]:
    with local_hub(CONTENT, FIRST) as hub:
        yield hub


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "gesso" / "models"


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path, source: Hub) -> Iterator[Start]:
    """Starts a server whose client gives this answer, for a user with these settings."""
    clients = []

    def begin(choice: str | None = None, capabilities: Any = ASKS, **settings: Any) -> Client:
        folders = {"XDG_DATA_HOME": str(tmp_path), "HF_ENDPOINT": source.address}
        client = Client({**environment, **folders}, server=SERVER)
        clients.append(client)
        client.choice = choice
        client.initialize(capabilities, settings)
        client.wait_until_ready()
        return client

    yield begin
    for client in clients:
        client.close()


def questions(client: Client) -> list[dict[str, Any]]:
    return [one["params"] for one in client.received if one["method"] == "window/showMessageRequest"]


def messages(client: Client) -> str:
    return "\n".join(one["params"]["message"] for one in client.received if one["method"] == "window/showMessage")


def progress(client: Client, title: str) -> list[dict[str, Any]]:
    """The values of the progress with this title."""
    values = [one["params"] for one in client.received if one["method"] == "$/progress"]
    tokens = [one["token"] for one in values if title in one["value"].get("title", "")]
    return [{**one["value"], "token": one["token"]} for one in values if one["token"] in tokens]


def wait_for_first_part(client: Client) -> dict[str, Any]:
    """Waits until the first part of the file is there; returns that report."""
    client.wait(lambda: any(one.get("percentage", 0) >= 50 for one in progress(client, "downloading coder")))
    return progress(client, "downloading coder")[-1]


def test_the_model_is_offered_downloaded_and_used(start: Start, source: Hub, models: Path) -> None:
    client = start("Download")
    report = wait_for_first_part(client)
    (question,) = questions(client)
    assert [action["title"] for action in question["actions"]] == ["Download", "Not Now", "Never"]
    assert f"{SMALL.bytes >> 20} MiB, Apache-2.0" in question["message"]
    assert "nothing you type leaves" in question["message"]
    assert report["message"] == "4 of 8 MiB"
    assert client.command("gesso.status")["model"] == "pocket" and client.state() == "ready"
    source.complete.set()
    client.wait(lambda: "suggestions now come from coder" in messages(client))
    client.wait_until_ready()
    assert client.command("gesso.status")["model"] == "coder"
    assert (models / SMALL.file).read_bytes() == CONTENT
    assert progress(client, "downloading coder")[-1]["kind"] == "end"


def test_a_second_editor_does_not_ask_but_uses_the_model(start: Start, source: Hub) -> None:
    first = start("Download")
    first.wait(lambda: bool(questions(first)))
    second = start("Download")
    source.complete.set()
    second.wait(lambda: "suggestions now come from coder" in messages(second))
    assert not questions(second)


@pytest.mark.parametrize("choice", ["Never", "Not Now", None])
def test_a_refused_offer_downloads_nothing_and_is_not_repeated(start: Start, source: Hub, choice: str | None) -> None:
    client = start(choice)
    client.wait(lambda: bool(questions(client)))
    client.close()
    client = start("Download")
    client.command("gesso.status")
    assert not questions(client) and not source.starts


@pytest.mark.parametrize(
    ("capabilities", "settings"),
    [(MODERN, {}), (ASKS, {"model": "pocket"})],
    ids=["client without questions", "a chosen model"],
)
def test_nothing_is_asked(start: Start, models: Path, capabilities: Any, settings: dict[str, Any]) -> None:
    client = start("Download", capabilities, **settings)
    client.command("gesso.status")
    assert not questions(client) and not (models / "offer.json").exists()


def test_a_cancelled_download_resumes_on_request(start: Start, source: Hub, models: Path) -> None:
    client = start("Download")
    report = wait_for_first_part(client)
    client.command("gesso.downloadModel")
    client.wait(lambda: "is being downloaded: 4 of 8 MiB" in messages(client))
    client.notify("window/workDoneProgress/cancel", {"token": report["token"]})
    client.wait(lambda: "The download of coder was cancelled; the next one resumes it." in messages(client))
    assert not (models / SMALL.file).exists()
    source.complete.set()
    client.command("gesso.downloadModel")
    client.wait(lambda: "suggestions now come from coder" in messages(client))
    first, second = source.starts
    assert first == 0 and second >= FIRST


def test_a_download_that_the_editor_interrupted_continues(start: Start, source: Hub) -> None:
    client = start("Download")
    wait_for_first_part(client)
    client.close()
    source.complete.set()
    client = start(None)
    client.wait(lambda: "suggestions now come from coder" in messages(client))
    first, second = source.starts
    assert not questions(client) and first == 0 and second >= FIRST


def test_a_failed_download_is_one_sentence(start: Start, source: Hub, models: Path) -> None:
    source.fails = True
    client = start("Download")
    client.wait(lambda: "coder could not be fetched" in messages(client))
    assert "run `gesso model pull coder` again" in messages(client) and "\n" not in messages(client)
    assert json.loads((models / "offer.json").read_text())["answer"] == "later"
    assert client.command("gesso.status")["model"] == "pocket"


def test_a_download_on_request_says_which_model_is_used(start: Start, source: Hub, models: Path) -> None:
    source.complete.set()
    client = start(model="pocket")
    client.command("gesso.downloadModel")
    client.wait(lambda: "coder is on this machine; the model in use is pocket" in messages(client))
    assert (models / SMALL.file).exists()


def test_the_doctor_says_whether_the_model_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert asyncio.run(model_offer._fits())
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(1)")
    monkeypatch.setattr(model_offer, "GESSO", (sys.executable, str(broken)))
    assert not asyncio.run(model_offer._fits())

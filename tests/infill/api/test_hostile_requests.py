"""Clients that send anything: each part of a valid request replaced by each hostile value, and bodies that are no JSON.

Whatever a client sends, the status is 200 or 4xx, and the response is JSON that any client can read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from infill.api.values import readable
from infill.edit_request import EditRequest, EditResult
from infill.engine_protocol import EngineRequest, EngineState
from infill.findings import Finding, LintRequest
from infill.request import Candidate, HoleCompletion, InfillRequest, InfillResult, Neighbour
from infill.service.app import make_app
from infill.service.guard import Guard, RequestActivity
from infill.service.model_engine import ModelEngine
from infill.settings import Settings
from tests.infill.hostile import HOSTILE, MISSING, changed, parts

NEIGHBOUR = {"path": "a.py", "text": "def f(): pass\n"}
INFILL = {
    "text": "x = \n",
    "holes": [{"start": 4, "end": 4}],
    "language": "python",
    "path": "b.py",
    "neighbours": [NEIGHBOUR],
    "priority": "inline",
    "client": "c",
    "local": False,
    "any_model": True,
    "lines": "one",
    "candidates": 1,
    "steps": 2,
    "seed": 1,
    "deadline_ms": 2000,
    "rejected": ["x"],
    "caution": 1.0,
    "stream": False,
    "min_confidence": 0.1,
    "copy_drafts": True,
    "causal_draft": True,
}
FINDING = {
    "start": 0,
    "end": 1,
    "code": "misspelled",
    "message": "m",
    "replacement": "y",
    "score": 1.0,
    "also": [[2, 3]],
    "explanation": None,
}
OPENAI = {
    "prompt": ["x = "],
    "suffix": "\n",
    "model": "m",
    "max_tokens": 4,
    "n": 1,
    "seed": 0,
    "stop": ["\n"],
    "stream": False,
    "stream_options": {"include_usage": True},
    "echo": True,
    "user": "u",
    "language": "python",
    "path": "x.py",
}
LLAMA = {
    "input_prefix": "x = ",
    "input_suffix": "\n",
    "input_extra": [{"filename": "a.py", "text": "y"}],
    "prompt": "",
    "n_predict": 4,
    "seed": 1,
    "stop": ["a"],
    "stream": False,
    "t_max_prompt_ms": 10,
    "t_max_predict_ms": 10,
    "language": "python",
    "path": "x",
    "response_fields": ["content", "timings/prompt_n"],
}
EDIT = {
    "text": "x = 1\n",
    "start": 4,
    "end": 5,
    "instruction": "add one",
    "language": "python",
    "path": "b.py",
    "neighbours": [NEIGHBOUR],
    "priority": "inline",
    "client": "c",
    "local": False,
    "any_model": True,
    "candidates": 1,
    "deadline_ms": 100.0,
    "stream": False,
}
LINT = {
    "text": "x = 1\n",
    "language": "python",
    "path": "b.py",
    "neighbours": [NEIGHBOUR],
    "ranges": [{"start": 0, "end": 5}],
    "off": ["a"],
    "on": ["b"],
    "findings": [FINDING],
    "explain": True,
    "priority": "lint",
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/infill": INFILL,
    "/v1/read-ahead": INFILL,
    "/v1/lint": LINT,
    "/v1/edit": EDIT,
    "/v1/completions": OPENAI,
    "/v1/fim/completions": OPENAI | {"stream": True},
    "/infill": LLAMA,
}
NOT_JSON = (
    b'{"text": ' + b"9" * 5000 + b"}",
    b'{"a": ' * 90_000,
    b"[" * 90_000 + b"]" * 90_000,
    b"\xff\xfe{\x00",
    b"NaN",
    b"null",
    b'"\\ud800"',
    b'{"text": 1} {}',
    b"",
)


class InstantEngine(ModelEngine):
    """Answers at once without a model, with an empty text for each hole."""

    def __init__(self) -> None:
        super().__init__(Settings(model="none"))
        self.state = EngineState("ready", "none")

    async def complete(self, request: EngineRequest[InfillRequest], on_step: Any = None) -> InfillResult:
        candidate = Candidate("", 0.5, True, None, "model", 0)
        completions = tuple(
            HoleCompletion(hole, "", True, None, 0.5, (candidate,) * request.request.candidates)
            for hole in request.request.holes
        )
        return InfillResult(completions, 1, 2, 3, 4, 5, {"encode": 1.0, "total": 2.0}, "none", request.request.seed)

    async def edit(self, request: EngineRequest[EditRequest], on_step: Any = None) -> EditResult:
        one = request.request
        return EditResult(one.start, one.end, "", True, None, (), 1, 1, {"total": 2.0}, "none")

    async def lint(self, request: EngineRequest[LintRequest]) -> tuple[Finding, ...]:
        return request.request.findings

    async def read_ahead(self, request: EngineRequest[InfillRequest]) -> int:
        return 0

    def tokens(self, text: str) -> list[int]:
        return [0] * len(text)

    def text(self, tokens: list[int]) -> str:
        return ""


@pytest.fixture
def api() -> TestClient:
    """Raises what the application does not catch."""
    return TestClient(Guard(make_app(InstantEngine()), RequestActivity()))


def status(api: TestClient, path: str, content: bytes) -> int:
    response = api.post(path, content=content, headers={"Content-Type": "application/json"})
    if response.headers["content-type"].startswith("application/json"):
        json.loads(response.text, parse_constant=pytest.fail)
    return response.status_code


@pytest.mark.parametrize("path", BODIES)
def test_hostile_values_are_refused_or_answered(api: TestClient, path: str) -> None:
    body = BODIES[path]
    assert status(api, path, json.dumps(body).encode()) == 200
    for part in parts(body):
        for hostile in (*HOSTILE, MISSING):
            found = status(api, path, json.dumps(changed(body, part, hostile)).encode())
            assert found in (200, 400, 429), (part, hostile)


@pytest.mark.parametrize("path", BODIES)
def test_a_body_that_is_not_json_is_refused(api: TestClient, path: str) -> None:
    for content in NOT_JSON:
        assert status(api, path, content) == 400, content[:40]


@pytest.mark.parametrize("path", BODIES)
def test_a_text_that_is_not_utf_8_is_refused(api: TestClient, path: str) -> None:
    """Unlike one of another file, which is left out."""
    text = next(name for name in ("text", "prompt", "input_prefix") if name in BODIES[path])
    content = json.dumps(BODIES[path] | {text: "x@@"}).encode().replace(b"@@", b"\xff")
    assert status(api, path, content) == 400


@pytest.mark.parametrize("path", [path for path, body in BODIES.items() if "path" in body])
def test_the_text_of_a_private_file_is_refused(api: TestClient, path: str, tmp_path: Path) -> None:
    """By the rules for a file that the user names: an ignore file does not count, unless a link leads there."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("made.py\n")
    (tmp_path / "made.py").write_text("x\n")
    (tmp_path / "link.py").symlink_to("made.py")
    (tmp_path / "innocent.py").symlink_to(".env")

    def answer(name: str | Path) -> int:
        return status(api, path, json.dumps(BODIES[path] | {"path": str(name)}).encode())

    for name in (".env", "deploy/ID_RSA.pub", ".aws/config.py", "a\0.env"):
        assert answer(name) == answer(tmp_path / name) == 400, name
    assert answer(tmp_path / "link.py") == answer(tmp_path / "innocent.py") == 400
    assert answer(tmp_path / "made.py") == answer("made.py") == answer("link.py") == 200


def test_neighbours_that_take_long_to_judge_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("infill.api.values.time.monotonic", lambda: now[0])

    def slow(path: Path, **_: object) -> None:
        now[0] += 0.2

    monkeypatch.setattr("infill.api.values.private_reason", slow)
    assert len(readable(Neighbour(f"/{number}.py", "x") for number in range(64))) == 3, "within NEIGHBOURS_S"

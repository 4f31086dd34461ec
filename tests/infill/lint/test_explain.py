"""Explanations of findings, end to end with an untrained model of the chat family."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from engine.checkpoints.export import save_model
from engine.denoiser import Denoiser, DenoiseRequest
from engine.errors import Cancelled, InputError
from engine.scheduling.scheduler import Scheduler
from infill.api.values import LintBody, findings_from_json, lint_request_to_json
from infill.cli.main import app
from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.engine_protocol import EngineState
from infill.findings import Finding, LintRequest
from infill.instructions import follows_instructions
from infill.lint.explain import GUESS, MAX_SENTENCE, SLOTS, Explainer, can_explain, one_sentence
from infill.lint.linter import Linter
from infill.lint.thresholds import Threshold, Thresholds
from infill.prompts.chat import ChatPrompt
from infill.prompts.prompt import Family
from infill.prompts.text_tokens import TextTokens
from infill.service.app import make_app
from infill.service.guard import Guard, RequestActivity
from infill.service.model_engine import ModelEngine
from infill.settings import Settings
from infill.validation import structure
from tests.infill.fakes import (
    FEW_STEPS,
    POCKET,
    ScriptedDenoiser,
    chat_tokenizer,
    tiny_completer,
    tiny_config,
    tiny_model,
)
from tests.infill.tiny_coder import coder

TEXT = "def f(left, right):\n    return left + left\n"
AT = TEXT.rindex("left")
FOUND = Finding(AT, AT + 4, "wrong-name", "`left` looks wrong.", "right", 3.0, ((1, 2),))
REQUEST = LintRequest(TEXT, "python", "a.py", findings=(FOUND,), explain=True)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TextTokens:
    return TextTokens.read(chat_tokenizer(tmp_path_factory.mktemp("chat")))


@cache
def _model() -> Denoiser:
    return Denoiser(tiny_model(vocab=461))


def _completer(denoiser: Denoiser, family: Family) -> Completer:
    settings = Settings(model=str(POCKET))
    return Completer(LoadedModel(settings.model, denoiser, family, FEW_STEPS), settings)


@pytest.fixture
def chat(tokens: TextTokens) -> Completer:
    """An untrained model of the chat family."""
    return _completer(_model(), ChatPrompt(tokens))


class Speaks(ScriptedDenoiser):
    """Answers with a text and the end of a turn."""

    def __init__(self, text: str, family: ChatPrompt) -> None:
        super().__init__(lambda _: [text], tokens=family.tokens)
        self.end = family.turn_end

    def _result(self, request: DenoiseRequest):  # type: ignore[no-untyped-def]
        result = super()._result(request)
        written = len(self.text_tokens.encode(self.script(0)[0]))
        result.tokens[written] = self.end
        return result


def test_an_explanation_is_one_short_line(chat: Completer) -> None:
    (explained,) = Linter(chat, Thresholds({})).lint(REQUEST)
    assert replace(explained, explanation=None) == FOUND
    answer = explained.explanation
    assert answer is not None and answer.isprintable() and 1 < len(answer) <= MAX_SENTENCE and answer[-1] in ".!?…"


def test_the_prompt_shows_the_code_and_the_change(chat: Completer, tokens: TextTokens) -> None:
    speaker = Speaks("It adds `left` twice. And so on.", chat.family)  # type: ignore[arg-type]
    completer = _completer(speaker, chat.family)
    assert Explainer(completer).explain(REQUEST, FOUND) == "It adds `left` twice."
    (request,) = speaker.requests
    prompt = tokens.decode(request.prompt)
    assert TEXT.strip() in prompt and "a.py" in prompt and prompt.endswith("\nmodel\nthought\n")
    assert "`return left + left` would become `return left + right`" in prompt
    assert request.canvas.width == SLOTS and request.deadline is not None and request.deadline > time.monotonic()
    assert request.banned is not None and 106 not in request.banned.tolist() and 105 in request.banned.tolist()


def test_a_long_file_is_cut(chat: Completer, tokens: TextTokens) -> None:
    speaker = Speaks("So.", chat.family)  # type: ignore[arg-type]
    text = "x = 1\n" * 5_000 + TEXT + "y = 2\n" * 5_000
    at = len("x = 1\n" * 5_000) + AT
    Explainer(_completer(speaker, chat.family)).explain(
        LintRequest(text, "python"), replace(FOUND, start=at, end=at + 4)
    )
    prompt = tokens.decode(speaker.requests[0].prompt)
    assert prompt.count("x = 1\n") == 11 and prompt.count("y = 2") == 12 and "left + left" in prompt


def test_explanations_can_be_cancelled_and_have_a_deadline(chat: Completer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Cancelled):
        Explainer(chat).explain_all(REQUEST, [FOUND], stop=lambda: True)
    monkeypatch.setattr("infill.lint.explain.DEADLINE_S", 0.0)
    steps: list[int] = []
    step = chat.denoiser.step
    monkeypatch.setattr(chat.denoiser, "step", lambda runs: (steps.append(1), step(runs)))
    assert Explainer(chat).explain(REQUEST, FOUND) is not None and len(steps) == 1


def test_a_model_without_instructions_is_refused_before_any_search() -> None:
    with pytest.raises(InputError, match="does not follow instructions") as error:
        Linter(tiny_completer(), Thresholds({})).lint(LintRequest(TEXT, "python", explain=True))
    assert str(error.value).count(".") == 1


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("`a` is used, i.e. twice. And more", "`a` is used, i.e. twice."),
        ("\n```python\nfoo()\n```\n", "foo()."),
        ("1. **Sentence:** It is\n   swapped!", "It is swapped!"),
        ('"Quoted."', "Quoted."),
        ("tab\tand\x00control\ufffd", "tab and control."),
        ("3.5 is not 4", "3.5 is not 4."),
        ("", None),
        ("\n ... \n", None),
    ],
)
def test_an_answer_is_cut_to_a_sentence(answer: str, sentence: str | None) -> None:
    assert one_sentence(answer) == sentence


def test_a_sentence_without_end_is_cut_at_a_word() -> None:
    cut = one_sentence("word " * 200)
    assert cut is not None and len(cut) <= MAX_SENTENCE and re.fullmatch(r"(word )*word…", cut)


def test_the_folder_of_a_model_shows_whether_it_follows_instructions(tmp_path: Path) -> None:
    assert not follows_instructions("pocket") and not follows_instructions(str(tmp_path / "nowhere"))
    for config, follows in (
        ({}, True),
        ({"gesso": {"family": "pocket"}}, False),
        ({"gesso": {"family": "chat"}}, True),
    ):
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "diffusion_gemma", **config}))
        assert follows_instructions(str(tmp_path / "model")) is follows


class ChattyEngine(ModelEngine):
    """An engine with an untrained model of the chat family."""

    def __init__(self, completer: Completer) -> None:
        super().__init__(Settings(model=str(POCKET)))
        self._model = completer.model
        self.scheduler = Scheduler(completer.denoiser)
        self.state = EngineState("ready", "tiny")


@pytest.fixture
def api(chat: Completer) -> Iterator[TestClient]:
    engine = ChattyEngine(_completer(Denoiser(tiny_model(vocab=461)), chat.family))
    yield TestClient(Guard(make_app(engine), RequestActivity()))
    engine.close()


def test_explanations_by_the_service(api: TestClient, chat: Completer) -> None:
    (answer,) = findings_from_json(api.post("/v1/lint", json=lint_request_to_json(REQUEST)).json())
    assert answer == Linter(chat, Thresholds({})).lint(REQUEST)[0]
    outside = replace(REQUEST, findings=(replace(FOUND, end=999),))
    assert api.post("/v1/lint", json=lint_request_to_json(outside)).status_code == 400


def test_a_request_with_findings_survives_json() -> None:
    request = replace(REQUEST, on=frozenset({"style-naming"}))
    sent = json.loads(json.dumps(lint_request_to_json(request)))
    assert structure(LintBody, sent, "body").request() == request


@pytest.fixture
def folder(tmp_path: Path, chat: Completer) -> Path:
    """An untrained model of the chat family on disk."""
    config = tiny_config(461)
    config["gesso"]["family"] = "chat"
    save_model(tiny_model(vocab=461), config, {"max_denoising_steps": 3}, tmp_path / "model", "float32")
    chat_tokenizer(tmp_path / "model")
    return tmp_path / "model"


def test_explanations_on_the_command_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    minimums = Threshold({}, intercept=1.0, minimums={"python": 0.0})
    monkeypatch.setattr("infill.lint.linter._thresholds", lambda model: Thresholds({"misspelled": minimums}))
    Path("app.py").write_text("first = 1\nsecond = frist + 1\nprint(first)\n")
    options = ["--explain", "--no-service", "--json", "--model", str(folder)]
    with monkeypatch.context() as context:
        context.setattr("infill.lint.masked.MIN_GAIN", -1e9)
        result = CliRunner().invoke(app, ["lint", *options, "app.py"])
    assert result.exit_code == 1, result.stderr
    (row,) = json.loads(result.stdout)["findings"]
    assert row["replacement"] == "first" and 1 < len(row["explanation"]) <= MAX_SENTENCE


def test_a_code_model_explains_with_a_guess() -> None:
    completer = coder("Perhaps not.\n")
    assert not can_explain(completer)
    completer.model = replace(completer.model, has_chat=True)
    assert Explainer(completer).explain(REQUEST, FOUND) == f"{GUESS} not."


def test_known_code_models_explain() -> None:
    assert follows_instructions("coder") and follows_instructions("coder-1.5b")

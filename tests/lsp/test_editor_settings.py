"""Settings as editors send them: wrong values, removed settings, and the schema for the editors' extensions."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.errors import InputError
from infill.engine_protocol import EngineState
from lsp.client_settings import extends_suggestions, is_trusted, section
from lsp.server import create_server
from lsp.session import Client, Session
from lsp.settings import ALL_PATHS, NAMES, LspSettings, parse, schema

WRONG: dict[str, list[Any]] = {
    "enabled": ["yes", 1, None],
    "eagerness": ["frantic", 3, None],
    "delayMs": [-1, 10_001, "50", True, 1.5],
    "languages": [["python"], {"python": "no"}, "python"],
    "disabledPaths": ["secret/", [1], None],
    "multiline": ["always", True],
    "alternatives": [0, 11, "3", None, True],
    "ordinaryCompletion": ["sometimes"],
    "nextEdits": ["yes", None],
    "lint": ["yes", 1],
    "lintSeverity": ["loud", None],
    "lintIgnore": ["wrong-name", [1], None],
    "lintInclude": ["style-naming", [1], None],
    "statistics": ["no"],
    "model": [1, ["pocket"]],
    "device": [0],
    "threads": [0, -2, 1.5, True],
    "minConfidence": [-0.1, 1.1, math.nan, "0.5", True],
}
RIGHT: dict[str, list[Any]] = {
    "enabled": [False],
    "eagerness": ["calm", "eager"],
    "delayMs": [0, 10_000, None],
    "languages": [{"python": False}],
    "disabledPaths": [["secret/", "*.sql"], []],
    "multiline": ["never"],
    "alternatives": [1, 10],
    "ordinaryCompletion": ["never"],
    "nextEdits": [False],
    "lint": [True, False, None],
    "lintSeverity": ["information", "warning", "error"],
    "lintIgnore": [["wrong-name"], []],
    "lintInclude": [["style-naming"], []],
    "statistics": [False],
    "model": ["26b", None],
    "device": ["cuda:1"],
    "threads": [1, None],
    "minConfidence": [0, 1, 0.25, None],
}


def test_every_setting_is_tested() -> None:
    assert set(WRONG) == set(RIGHT) == set(NAMES)


def test_without_settings_all_values_are_defaults() -> None:
    assert parse({}) == (LspSettings(), [])


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_becomes_the_default_with_a_message(name: str, value: Any) -> None:
    settings, problems = parse({name: value, "logLevel2": 1})
    is_private = name == "disabledPaths"
    assert settings == (LspSettings(disabled_paths=ALL_PATHS) if is_private else LspSettings())
    assert len(problems) == 2
    result = "No file is read until it is corrected." if is_private else "The default is used."
    assert problems[0].startswith(f"The setting gesso.{name}") and problems[0].endswith(f". {result}")
    assert "; it must be " in problems[0]
    assert problems[1] == "Ignoring unknown setting gesso.logLevel2."


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in RIGHT.items() for value in values])
def test_a_right_value_is_used(name: str, value: Any) -> None:
    settings, problems = parse({name: value})
    assert problems == []
    taken = getattr(settings, NAMES[name])
    if name == "languages":
        assert taken == {"*": True, "plaintext": False, "markdown": False, "python": False}
    else:
        assert taken == (tuple(value) if isinstance(value, list) else value)


def test_a_wrong_value_is_ignored_alone() -> None:
    settings, problems = parse({"eagerness": "frantic", "delayMs": 250})
    assert settings.delay_ms == 250 and settings.eagerness == "balanced"
    assert problems == [
        'The setting gesso.eagerness is "frantic"; it must be one of calm, balanced, eager. The default is used.'
    ]


def test_a_wrong_part_of_a_value_is_named() -> None:
    _, problems = parse({"languages": {"go": "no"}, "lintIgnore": ["wrong-name", 1], "threads": 0})
    assert problems == [
        'The setting gesso.languages.go is "no"; it must be true or false. The default is used.',
        "The setting gesso.lintIgnore[1] is 1; it must be a string. The default is used.",
        "The setting gesso.threads is 0; it must be a whole number from 1 or null. The default is used.",
    ]


@pytest.mark.parametrize("value", ["own", "service"])
def test_a_removed_setting_is_reported_with_what_to_do(value: str) -> None:
    settings, problems = parse({"engine": value, "delayMs": 250})
    assert settings == LspSettings(delay_ms=250)
    sentence = "The service is always used; remove the setting."
    assert problems == [f"The setting gesso.engine no longer exists. {sentence}"]


def test_an_invalid_pattern_is_ignored_alone() -> None:
    settings, problems = parse({"disabledPaths": ["!", "legal/"]})
    assert settings.disabled_paths == ("legal/",)
    assert len(problems) == 1 and "'!'" in problems[0]


def test_the_settings_of_the_extensions_are_ignored() -> None:
    assert parse({"server": {"command": ["gesso-lsp"]}, "trace": {"server": "off"}}) == (LspSettings(), [])


@pytest.fixture
def no_user_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MODEL", "DEVICE", "THREADS", "MIN_CONFIDENCE", "STEPS"):
        monkeypatch.delenv(f"GESSO_{name}", raising=False)


def test_the_editor_overrides_variables_and_these_override_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_user_settings: None
) -> None:
    (tmp_path / "gesso.toml").write_text('model = "from-the-file"\ndevice = "cpu"\nsteps = 5\nthreads = 3\n')
    monkeypatch.setenv("GESSO_DEVICE", "cuda")
    monkeypatch.setenv("GESSO_THREADS", "2")
    settings, _ = parse({"threads": 1, "minConfidence": 1})
    resolved = settings.engine_settings(tmp_path, is_trusted=True).settings
    assert (resolved.model, resolved.device, resolved.steps) == ("from-the-file", "cuda", 5)
    assert (resolved.threads, resolved.min_confidence) == (1, 1.0)
    assert isinstance(resolved.min_confidence, float)


def test_a_models_path_is_relative_to_the_workspace(
    tmp_path: Path, no_user_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = parse({"model": "./mine"})
    assert settings.engine_settings(tmp_path).settings.model == str(tmp_path / "mine")
    settings, _ = parse({"model": "owner/name"})
    assert settings.engine_settings(tmp_path).settings.model == "owner/name"
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert settings.engine_settings(tmp_path).settings.model == "owner/name", "a project cannot replace a model"


def test_a_broken_settings_file_is_an_error_with_its_name(tmp_path: Path, no_user_settings: None) -> None:
    (tmp_path / "gesso.toml").write_text("model = ")
    with pytest.raises(InputError, match="gesso.toml"):
        LspSettings().engine_settings(tmp_path)


def test_the_schema_describes_what_parse_accepts() -> None:
    described = schema()
    assert list(described) == [f"gesso.{name}" for name in NAMES]
    for name in NAMES:
        entry = described[f"gesso.{name}"]
        assert entry["markdownDescription"].endswith(".")
        assert parse({name: entry["default"]}) == (LspSettings(), [])
        for choice in entry.get("enum", ()):
            assert parse({name: choice})[1] == []
        for bound, step in (("minimum", -1), ("maximum", 1)):
            if bound in entry:
                assert parse({name: entry[bound]})[1] == [] and parse({name: entry[bound] + step})[1] != []
        assert (parse({name: None})[1] == []) == ("null" in entry["type"])
    assert described["gesso.eagerness"]["enum"] == ["calm", "balanced", "eager"]
    assert described["gesso.delayMs"]["type"] == ["integer", "null"]
    assert described["gesso.languages"]["additionalProperties"] == {"type": "boolean"}


def test_a_notice_about_a_setting_is_shown_once(tmp_path: Path, no_user_settings: None) -> None:
    (tmp_path / "gesso.toml").write_text('meanwhile = "small"\n')
    shown: list[str] = []
    session = Session(cast(Client, SimpleNamespace(warn=shown.append)))
    session.folders, session.is_trusted = (tmp_path,), True
    session.engine.start = lambda settings: None  # type: ignore[method-assign]
    for _ in range(2):
        asyncio.run(session.configure({"statistics": False}))
    (notice,) = shown
    assert "meanwhile is now called fallback_model" in notice


def test_why_the_engine_does_not_start_is_shown_once_while_it_is_restarted() -> None:
    shown: list[str] = []
    client = SimpleNamespace(warn=shown.append, show_state=lambda state: None)
    session = Session(cast(Client, client))
    for state in (
        EngineState("loading", "pocket"),
        EngineState("loading", "pocket", message="The disk is full."),
        EngineState("loading", "pocket", message="The disk is full."),
        EngineState("failed", "pocket", message="It failed 3 times. The disk is full."),
    ):
        session._engine_changed(state)
    assert shown == ["The disk is full.", "It failed 3 times. The disk is full."]


def test_what_one_model_suggested_is_forgotten_when_another_answers() -> None:
    """Nothing found by the pocket model keeps the coder from being asked in the same position."""
    session = Session(cast(Client, SimpleNamespace(warn=print, show_state=lambda state: None)))
    session._engine_changed(EngineState("ready", "coder", fallback_model="pocket"))
    session.cache.store("file:///a.py", "x = ", "", (), "one")
    session._engine_changed(EngineState("ready", "coder", fallback_model="pocket"))
    assert session.cache.look_up("file:///a.py", "x = ", "") is not None
    session._engine_changed(EngineState("ready", "coder"))
    assert session.cache.look_up("file:///a.py", "x = ", "") is None


def test_messages_have_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    server, shown = create_server(), []
    monkeypatch.setattr(server, "window_show_message", lambda params: shown.append(params.message))
    server.warn("a\x1b[2J\nb")
    server.inform("\u202ec")
    server.session.engine.state = EngineState("failed", "", message="d\re")
    assert [*shown, server.status()["message"]] == ["a␛[2J␊b", "<U+202E>c", "d␍e"]


def test_the_status_names_the_model_that_answers_while_another_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    server = create_server()
    monkeypatch.setattr(server.protocol, "notify", lambda method, params: sent.append(params))
    server.session.engine.state = EngineState("ready", "coder", fallback_model="pocket")
    server.send_status()
    server.session.engine.state = EngineState("ready", "coder")
    server.send_status()
    assert [(one["message"], one["busy"]) for one in sent] == [
        ("coder is loading. Until then, pocket answers.", True),
        ("", False),
    ]


def test_without_a_home_the_editor_says_so(monkeypatch: pytest.MonkeyPatch, no_user_settings: None) -> None:
    def no_home(*arguments: object, **options: object) -> str:
        raise RuntimeError("no home")

    monkeypatch.setattr("platformdirs.user_data_dir", no_home)
    shown: list[str] = []
    session = Session(cast(Client, SimpleNamespace(warn=shown.append)))
    session.engine.start = lambda settings: None  # type: ignore[method-assign]
    asyncio.run(session.configure({}))
    (sentence,) = shown
    assert "set HOME" in sentence


def test_only_the_client_itself_says_that_a_workspace_is_trusted() -> None:
    assert is_trusted({"gesso": {}, "workspaceTrusted": True})
    assert extends_suggestions({"extendsSuggestions": True}) and not extends_suggestions({"extendsSuggestions": 1})
    assert is_trusted(SimpleNamespace(gesso={}, workspaceTrusted=True))
    for options in (None, {}, {"workspaceTrusted": "yes"}, {"gesso": {"workspaceTrusted": True}}):
        assert not is_trusted(options)


def test_an_untrusted_workspace_does_not_choose_the_model(tmp_path: Path, no_user_settings: None) -> None:
    (tmp_path / "gesso.toml").write_text('model = "evil/model"\nseed = 3\n')
    shown: list[str] = []
    session = Session(cast(Client, SimpleNamespace(warn=shown.append)))
    session.folders = (tmp_path,)
    session.engine.start = lambda settings: None  # type: ignore[method-assign]
    asyncio.run(session.configure({"statistics": False}))
    assert session.engine_settings is not None
    assert (session.engine_settings.model, session.engine_settings.seed) == ("pocket", 3)
    (notice,) = shown
    assert notice.startswith(f"Ignoring model in {tmp_path / 'gesso.toml'}") and "gesso trust" in notice
    session.is_trusted = True
    asyncio.run(session.configure({"statistics": False}))
    assert session.engine_settings.model == "evil/model" and len(shown) == 1


def test_options_of_other_clients_are_no_settings() -> None:
    sent = {"editorInfo": {}, "editorPluginInfo": {}, "nextEditSuggestions": {"enabled": True}, "delayMs": 3}
    assert section(sent) == section({"gesso": sent}) == {"delayMs": 3}

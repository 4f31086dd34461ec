"""The origin of each setting, old names, and errors for wrong values."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import InputError, ModelError, UsageError
from infill import model_store, settings
from infill.settings import Settings, read_toml, resolve


def test_without_any_source_all_values_are_defaults(tmp_path: Path) -> None:
    resolved = resolve({}, tmp_path, {})
    assert resolved.settings == replace(Settings(), model="pocket")
    assert set(resolved.origins.values()) == {"default", "auto, default"}
    assert set(resolved.origins) == set(vars(Settings()))


def test_later_sources_override_earlier_ones(tmp_path: Path) -> None:
    names = ("steps", "seed", "candidates", "threads")
    settings.trust_list().add(tmp_path)
    settings.user_file().write_text("\n".join(f"{name} = 1" for name in names))
    project = tmp_path / "gesso.toml"
    project.write_text("\n".join(f"{name} = 2" for name in names[1:]))
    environment = {"GESSO_CANDIDATES": "3", "GESSO_THREADS": "3"}
    resolved = resolve({"threads": 4}, tmp_path, environment)
    found = [getattr(resolved.settings, name) for name in names]
    assert found == [1, 2, 3, 4]
    assert [resolved.origins[name] for name in names] == [
        str(settings.user_file()),
        str(project),
        "variable GESSO_CANDIDATES",
        "flag --threads",
    ]


def test_the_nearest_project_file_is_used(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.gesso]\nlines = "one"\nseed = 5\n')
    inner = tmp_path / "package" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / "package" / "pyproject.toml").write_text("[tool.ruff]\n")
    resolved = resolve({}, inner, {})
    assert (resolved.settings.lines, resolved.settings.seed) == ("one", 5)
    (inner / "gesso.toml").write_text('lines = "block"\n')
    resolved = resolve({}, inner, {})
    assert (resolved.settings.lines, resolved.settings.seed) == ("block", 0)


def test_a_file_in_a_folder_of_all_users_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "gesso.toml").write_text("not TOML")
    (tmp_path / "work").mkdir()
    tmp_path.chmod(0o1777)  # as /tmp
    assert resolve({}, tmp_path / "work", {}).settings == replace(Settings(), model="pocket")
    assert resolve({}, tmp_path, {}).settings == replace(Settings(), model="pocket")
    tmp_path.chmod(0o777)
    with pytest.raises(InputError, match="not valid TOML"):
        resolve({}, tmp_path / "work", {})


def test_a_broken_pyproject_without_our_settings_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff\n")
    assert resolve({}, tmp_path, {}).settings == replace(Settings(), model="pocket")


def test_a_half_typed_pyproject_leaves_its_last_valid_settings(tmp_path: Path) -> None:
    """Others edit that file too, and it must not end all suggestions in its folder."""
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.gesso\n")
    found = resolve({}, tmp_path, {})
    assert found.settings == replace(Settings(), model="pocket")
    (notice,) = found.notices
    assert notice.startswith(f"Using no settings of the project: {file} is not valid TOML")
    file.write_text("[tool.gesso]\nseed = 7\n")
    assert (resolve({}, tmp_path, {}).settings.seed, resolve({}, tmp_path, {}).notices) == (7, ())
    file.write_text('[project]\nname = "\n[tool.gesso]\nseed = 8\n')
    found = resolve({}, tmp_path, {})
    assert (found.settings.seed, found.origins["seed"]) == (7, str(file))
    assert found.notices[0].startswith("Using the last valid settings of the project: ")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("stesp = 3", "there is no setting 'stesp'; `gesso config` lists them all"),
        ('steps = "3"', 'steps is "3"; it must be a whole number from 1 to 1000 or empty'),
        ("steps = 0", "steps is 0; it must be a whole number from 1 to 1000"),
        ("steps = true", "steps is true; it must be a whole number"),
        ("seed = 1.5", "seed is 1.5; it must be a whole number"),
        ('lines = "two"', 'lines is "two"; it must be one of one, block, auto'),
        ("min_confidence = 2", "min_confidence is 2; it must be a number from 0 to 1"),
        ("min_confidence = nan", "it must be a number"),
        ("deadline_ms = inf", "it must be a number"),
        ("offline = 1", "offline is 1; it must be true or false"),
        ('model = ""', 'model is ""; it must be a non-empty string'),
        ("seed =", "is not valid TOML"),
    ],
)
def test_an_error_names_the_file_and_the_setting(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "gesso.toml").write_text(line + "\n")
    with pytest.raises(InputError) as caught:
        resolve({}, tmp_path, {})
    assert sentence in str(caught.value) and str(tmp_path / "gesso.toml") in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "written", "name", "value"),
    [
        ("GESSO_OFFLINE", "Yes", "offline", True),
        ("GESSO_COPY_DRAFTS", "0", "copy_drafts", False),
        ("GESSO_DEADLINE_MS", "250", "deadline_ms", 250.0),
        ("GESSO_MODEL", "/models/mine", "model", "/models/mine"),
        ("GESSO_THREADS", " 2 ", "threads", 2),
        ("GESSO_THREADS", "", "threads", 8),
    ],
)
def test_a_variable_is_converted_to_the_type_of_its_setting(
    tmp_path: Path, variable: str, written: str, name: str, value: object
) -> None:
    found = getattr(resolve({}, tmp_path, {variable: written}).settings, name)
    assert found == value and type(found) is type(value)


def test_an_empty_variable_overrides_a_file(tmp_path: Path) -> None:
    (tmp_path / "gesso.toml").write_text("steps = 4\n")
    assert resolve({}, tmp_path, {"GESSO_STEPS": ""}).settings.steps is None


def test_a_wrong_variable_or_flag_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='GESSO_STEPS is "many"'):
        resolve({}, tmp_path, {"GESSO_STEPS": "many"})
    with pytest.raises(UsageError, match="--deadline-ms is 0.0"):
        resolve({"deadline_ms": 0.0}, tmp_path, {})


def test_unknown_variables_are_reported(tmp_path: Path) -> None:
    environment = {"GESSO_MODLE": "pocket", "OTHER": "x"}
    assert resolve({}, tmp_path, environment).unknown_variables == ("GESSO_MODLE",)


def test_an_untrusted_project_chooses_nothing_that_is_loaded(tmp_path: Path) -> None:
    project = tmp_path / "gesso.toml"
    project.write_text(
        'model = "evil/model"\nfallback_model = "a"\nretry_model = "b"\ndevice = "cuda"\ndtype = "float32"\n'
        'keys = "fp8"\nthreads = 1024\noffline = false\nseed = 5\n'
    )
    settings.user_file().write_text("offline = true\nthreads = 2\n")
    resolved = resolve({}, tmp_path, {})
    assert resolved.settings == replace(Settings(), model="pocket", offline=True, threads=2, seed=5)
    assert resolved.origins["offline"] == str(settings.user_file()) and resolved.origins["seed"] == str(project)
    assert resolved.notices == (
        f"Ignoring model, fallback_model, retry_model, device, dtype, keys, threads, offline in {project}, because the "
        f"folder is not trusted; to use them, run `gesso trust {tmp_path}`.",
    )
    assert resolve({}, tmp_path, {}, is_trusted=True).settings.model == "evil/model"


def test_a_trusted_folder_includes_those_below_it(tmp_path: Path) -> None:
    inner, beside = tmp_path / "work" / "inner", tmp_path / "work-2"
    for folder in (inner, beside):
        folder.mkdir(parents=True)
        (folder / "gesso.toml").write_text('device = "cuda"\n')
    settings.trust_list().add(tmp_path / "work")
    assert resolve({}, inner, {}).settings.device == "cuda" and resolve({}, inner, {}).notices == ()
    assert resolve({}, beside, {}).settings.device == "auto"
    link = tmp_path / "work" / "link"
    link.symlink_to(beside)
    assert resolve({}, link, {}).settings.device == "auto"
    assert settings.trust_list().remove(tmp_path / "work") and not settings.trust_list().remove(inner)
    assert resolve({}, inner, {}).settings.device == "auto"


@pytest.mark.parametrize("name", ["gesso.toml", "pyproject.toml"])
def test_hostile_project_files_neither_block_nor_fill_the_memory(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    os.mkfifo(file)
    assert resolve({}, tmp_path, {}).settings == replace(Settings(), model="pocket")
    file.unlink()
    file.symlink_to("/dev/zero")
    assert resolve({}, tmp_path, {}).settings == replace(Settings(), model="pocket")
    file.unlink()
    with file.open("wb") as stream:
        stream.write(b"[tool.gesso]\n")
        stream.truncate(5 << 30)
    if name == "pyproject.toml":
        assert resolve({}, tmp_path, {}).settings == replace(Settings(), model="pocket")
    else:
        with pytest.raises(InputError, match="it is larger than"):
            resolve({}, tmp_path, {})


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 50_000,
        "a = " + "9" * 5_000,
        "a." * 100_000 + "a = 1",
        "a . " * 50_000 + "a = 1",
        "[" + '\'a\'."b\\"".' * 20_000 + "a]",
        "x = {" + "a." * 100_000 + "a = 1}",
        "a" * 200_000,
        '"' * 200_000,
        "a.a.a.a.a-" * 20_000,
    ],
    ids=range(9),
)
def test_toml_that_no_parser_can_read_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "gesso.toml").write_text(text)
    with pytest.raises(InputError, match="is not valid TOML"):
        resolve({}, tmp_path, {})


def test_usual_keys_and_texts_with_many_dots_are_read(tmp_path: Path) -> None:
    versions = ", ".join(["1.2"] * 500)
    (tmp_path / "gesso.toml").write_text(f"{'.'.join('a' * 50)} = [{versions}] # {'a.' * 30}\n")
    assert read_toml(tmp_path / "gesso.toml").keys() == {"a"}


def test_a_models_path_is_relative_to_the_project_file(tmp_path: Path) -> None:
    settings.trust_list().add(tmp_path)
    (tmp_path / "gesso.toml").write_text('model = "./models/mine"\nretry_model = "./other"\n')
    (tmp_path / "src").mkdir()
    found = resolve({}, tmp_path / "src", {}).settings
    assert (found.model, found.retry_model) == (str(tmp_path / "models" / "mine"), str(tmp_path / "other"))


def test_an_old_name_works_with_a_notice(tmp_path: Path) -> None:
    resolved = resolve({}, tmp_path, {"GESSO_MEANWHILE": ""})
    assert resolved.settings.fallback_model is None and resolved.unknown_variables == ()
    assert resolved.origins["fallback_model"] == "variable GESSO_FALLBACK_MODEL"
    assert resolved.notices == (
        "The setting GESSO_MEANWHILE is now called GESSO_FALLBACK_MODEL; the old name still works.",
    )
    (tmp_path / "gesso.toml").write_text('meanwhile = "small"\n')
    settings.trust_list().add(tmp_path)
    resolved = resolve({}, tmp_path, {})
    assert resolved.settings.fallback_model == "small"
    assert resolved.notices == (
        f"{tmp_path / 'gesso.toml'}: The setting meanwhile is now called fallback_model; the old name still works.",
    )
    resolved = resolve({"meanwhile": "other"}, tmp_path, {"GESSO_FALLBACK_MODEL": "third"})
    assert resolved.settings.fallback_model == "other" and "--fallback-model" in resolved.notices[1]


def test_the_new_name_overrides_the_old_one(tmp_path: Path) -> None:
    environment = {"GESSO_MEANWHILE": "old", "GESSO_FALLBACK_MODEL": "new"}
    assert resolve({}, tmp_path, environment).settings.fallback_model == "new"


def test_a_retry_model_that_is_the_model_gets_a_notice(tmp_path: Path) -> None:
    resolved = resolve({"model": "coder", "retry_model": "coder"}, tmp_path, {})
    assert resolved.notices == ("Nothing is retried: retry_model and model are both coder; choose two models.",)
    assert resolve({"model": "26b", "retry_model": "coder"}, tmp_path, {}).notices == ()
    assert resolve({"retry_model": "coder"}, tmp_path, {"GESSO_RETRY_MODEL": ""}).settings.retry_model == "coder"
    assert resolve({}, tmp_path, {"GESSO_RETRY_MODEL": ""}).settings.retry_model is None


@pytest.mark.parametrize(
    ("model", "best", "retry"), [("26b", "coder", "coder"), ("coder", "coder", None), ("26b", None, None)]
)
def test_the_automatic_retry_model_is_the_best_code_model_other_than_the_model(
    model: str, best: str | None, retry: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "best_code_model", lambda: best)
    resolved = resolve({"model": model}, tmp_path, {"GESSO_RETRY_MODEL": "auto"})
    assert resolved.settings.retry_model == retry and resolved.notices == ()
    assert resolved.origins["retry_model"] == "auto, variable GESSO_RETRY_MODEL"


@pytest.mark.parametrize("name", ["./model", "../here/model", "model", "a/b", "~/model"])
def test_the_path_of_a_model_is_absolute(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service that gets it runs in another folder."""
    here = tmp_path / "here"
    for folder in ("model", "a/b"):
        (here / folder).mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    expected = str(here / name.removeprefix("~/").removeprefix("../here/"))
    assert resolve({"model": name}, tmp_path, {}).settings.model == expected
    assert resolve({}, tmp_path, {"GESSO_RETRY_MODEL": name}).settings.retry_model == expected


@pytest.mark.parametrize("name", ["pocket", "coder", "26b", "owner/name"])
def test_the_name_of_a_model_is_not_a_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("pocket", "coder", "26b"):
        (tmp_path / folder).mkdir()
    assert resolve({"model": name}, tmp_path, {}).settings.model == name


def test_a_projects_folder_is_not_the_model_of_the_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text('model = "owner/name"\n')
    monkeypatch.setattr("infill.settings.user_file", lambda: tmp_path / "config" / "config.toml")
    assert resolve({}, tmp_path, {}).settings.model == "owner/name"
    with pytest.raises(ModelError, match="not on this machine"):
        model_store.resolve("owner/name")
    assert model_store.resolve(model_store.absolute("owner/name", Path())) == tmp_path / "owner" / "name"


def test_a_missing_model_keeps_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve({"model": "./absent"}, tmp_path, {}).settings.model == str(tmp_path / "absent")


def test_a_settings_file_in_a_folder_that_cannot_be_entered_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(InputError, match=r"config.toml cannot be read \(Permission denied\); .* XDG_CONFIG_HOME"):
        resolve({}, tmp_path, {})

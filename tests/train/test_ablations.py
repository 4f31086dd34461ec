"""The list of variants: reading, refusal, recipes, results. Nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.errors import InputError
from tests.train.small_recipe import MODEL
from train import ablations
from train.ablations import Variant, read_variants, recipe_text, results_table, train_variant
from train.recipe import read_recipe

ROOT = Path(__file__).parents[2]
BASE = f"""
[base.model]
{MODEL}
[base.layout]
prompt = 48
kind_shares = [0.2, 0.2, 0.2, 0.2, 0.2]

[base.run]
rows = 4
"""
VARIANTS = """
[[variant]]
name = "first"
question = "start"
tokens = 0.5

[[variant]]
name = "second"
question = "noise"
tokens = 0.25
start = "first"
data = "other"
model = { noise = "mask" }
layout = { canvases = 2 }
run = { rows = 8 }
"""
RESULT = {"tokens": 2_400_000, "seconds": 90.0, "valid_causal": 3.25, "valid_hole": 2.5, "valid_hole_first": 4.125}


def written(folder: Path, text: str) -> Path:
    (folder / "variants.toml").write_text(text)
    return folder / "variants.toml"


def test_variants_are_read_in_order_with_their_changes(tmp_path: Path) -> None:
    base, (first, second) = read_variants(written(tmp_path, BASE + VARIANTS))
    assert base["run"] == {"rows": 4}
    assert first == Variant("first", "start", 0.5)
    assert second.start == "first" and second.data == "other"
    assert second.changes == {"model": {"noise": "mask"}, "layout": {"canvases": 2}, "run": {"rows": 8}}


def test_the_recipe_of_a_variant_is_the_base_with_its_changes(tmp_path: Path) -> None:
    base, (first, second) = read_variants(written(tmp_path, BASE + VARIANTS))
    recipes = []
    for variant in (first, second):
        (tmp_path / "recipe.toml").write_text(recipe_text(base, variant.changes))
        recipes.append(read_recipe(tmp_path / "recipe.toml", 64))
    plain, changed = recipes
    assert plain.model.noise.kind == "hybrid" and plain.layout.canvases == 1 and plain.run.rows == 4
    assert changed.model.noise.kind == "mask" and changed.layout.canvases == 2 and changed.run.rows == 8
    assert changed.layout.prompt == plain.layout.prompt == 48
    assert list(plain.layout.kind_shares) == [0.2] * 5


def test_every_variant_of_the_repository_has_a_valid_recipe(tmp_path: Path) -> None:
    base, variants = read_variants(ROOT / "train" / "ablations.toml")
    for variant in variants:
        (tmp_path / "recipe.toml").write_text(recipe_text(base, variant.changes))
        read_recipe(tmp_path / "recipe.toml", 8192)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (BASE + VARIANTS.replace('"second"', '"first"'), "two variants named 'first'"),
        (BASE + VARIANTS.replace('start = "first"', 'start = "third"'), "'third', which must come before"),
        (BASE + VARIANTS.replace('start = "first"', 'start = "second"'), "'second', which must come before"),
        (BASE, "cannot be read"),
        (VARIANTS, "cannot be read"),
        (BASE + VARIANTS.replace("tokens = 0.5", ""), "cannot be read"),
        (BASE + VARIANTS.replace("tokens = 0.5", "tokens = 0.5\ntoken = 3"), "cannot be read"),
        ("[base", "cannot be read"),
    ],
)
def test_an_invalid_list_is_refused(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        read_variants(written(tmp_path, text))


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ablations.toml"):
        read_variants(tmp_path / "none.toml")


def test_a_failed_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    base, variants = read_variants(written(tmp_path, BASE + VARIANTS))
    with pytest.raises(InputError, match="'first' failed"):
        train_variant(variants[0], base, tmp_path / "no data", tmp_path / "no tokenizer", tmp_path / "out")
    assert read_recipe(tmp_path / "out" / "first" / "recipe.toml", 64).run.rows == 4


def test_the_table_has_a_row_for_every_result() -> None:
    variants = [Variant("first", "start", 0.5), Variant("second", "noise", 0.25)]
    console = Console(width=120, record=True, quiet=True)
    with console.capture() as shown:
        console.quiet = False
        console.print(results_table(variants, {"second": RESULT}))
    text = shown.get()
    assert not any("start" in line for line in text.splitlines())
    row = next(line for line in text.splitlines() if "second" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "noise",
        "second",
        "2.4",
        "2",
        "3.250",
        "2.500",
        "4.125",
    ]


def test_variants_with_a_result_are_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def one_run(variant: Variant, *rest: Any) -> dict[str, Any]:
        trained.append(variant.name)
        return RESULT

    monkeypatch.setattr(ablations, "train_variant", one_run)
    monkeypatch.setattr(ablations, "console", Console(quiet=True))
    out = tmp_path / "out"
    arguments = {"data": tmp_path, "tokenizer": tmp_path, "out": out, "variants": written(tmp_path, BASE + VARIANTS)}
    ablations.main(**arguments, only=["first"])
    assert trained == ["first"] and json.loads((out / "results.json").read_text()) == {"first": RESULT}
    ablations.main(**arguments, only=None)
    ablations.main(**arguments, only=None)
    assert trained == ["first", "second"]

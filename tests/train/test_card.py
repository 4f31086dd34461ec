"""The model card: its figures come from logs and summaries, and the list of sources is complete."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from engine.errors import InputError
from train.card import write_card

ROOT = Path(__file__).parents[2]
POCKET = ROOT / "infill" / "models" / "pocket"
RESULTS = ROOT / "bench" / "results"
MANIFEST = ROOT / "train" / "manifest.json"
RECIPE = ROOT / "train" / "pocket_continue.toml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(POCKET / "config.json", tmp_path)
    return tmp_path


def test_the_shipped_card_is_what_the_program_writes(folder: Path) -> None:
    runs = [ROOT / "train" / "logs" / f"{number}.jsonl" for number in (1, 2, 3)]
    summaries = [RESULTS / f"{name}.json" for name in ("quality_languages", "quality_lengths")]
    write_card(runs, MANIFEST, RESULTS / "quality.json", RECIPE, folder, *summaries)
    for name in ("MODEL_CARD.md", "sources.json"):
        assert (folder / name).read_text() == (POCKET / name).read_text(), name
    sums = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums["sources.json"] == hashlib.sha256((folder / "sources.json").read_bytes()).hexdigest()


def test_every_project_that_was_kept_is_listed_with_its_license() -> None:
    kept = {(one["ecosystem"], one["name"]) for one in json.loads(MANIFEST.read_text()) if "skipped" not in one}
    sources = json.loads((POCKET / "sources.json").read_text())
    assert {(one["ecosystem"], one["name"]) for one in sources} == kept and all(one["license"] for one in sources)


def test_a_missing_summary_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match="nothing.json"):
        write_card([], MANIFEST, folder / "nothing.json", RECIPE, folder)

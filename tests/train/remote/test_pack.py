"""Packing and unpacking restores every byte; a small limit leaves files out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from tests.train.prepared import LANGUAGES, TOKENIZER, write_prepared
from train.data import TokenFiles
from train.remote import pack as packing
from train.remote.pack import Split, choose, pack, unpack
from train.tokenizer import LANGUAGE_IDS

ARRAYS = [f"{name}-{split}.{end}" for split in packing.SPLITS for name, end in
          (("tokens", "bin"), ("files", "npy"), ("spans", "npy"))]  # fmt: skip
LIMIT = 1 << 20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_prepared(folder, {"train": 120, "valid": 9})
    return folder


def test_unpacking_restores_every_byte(data: Path, tmp_path: Path) -> None:
    packed = pack(data, TOKENIZER, tmp_path / "pack", LIMIT)
    assert packed["kept"] == packed["files"] == 120
    unpack(tmp_path / "pack", tmp_path / "back")
    for name in (*ARRAYS, "meta.json"):
        assert (tmp_path / "back" / name).read_bytes() == (data / name).read_bytes(), name
    assert (tmp_path / "back" / "tokenizer.json").read_bytes() == TOKENIZER.read_bytes()


def test_pieces_have_a_size_limit_and_replace_older_ones(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "pack-99.xz").write_bytes(b"old")
    monkeypatch.setattr(packing, "PIECE", 20_000)
    packed = pack(data, TOKENIZER, tmp_path / "pack", LIMIT)
    sizes = [piece.stat().st_size for piece in sorted((tmp_path / "pack").iterdir())]
    assert len(sizes) > 3 and max(sizes) <= 20_000 and sum(sizes) == sum(packed["sizes"].values())
    unpack(tmp_path / "pack", tmp_path / "back")
    assert (tmp_path / "back" / ARRAYS[0]).read_bytes() == (data / ARRAYS[0]).read_bytes()


def test_a_small_limit_leaves_out_the_same_share_of_each_language(data: Path, tmp_path: Path) -> None:
    whole = pack(data, TOKENIZER, tmp_path / "whole", LIMIT)
    fixed = sum(size for name, size in whole["sizes"].items() if name in ("tokenizer", "header"))
    limit = fixed + (sum(whole["sizes"].values()) - fixed) * 3 // 5
    packed = pack(data, TOKENIZER, tmp_path / "pack", limit)
    assert sum(piece.stat().st_size for piece in (tmp_path / "pack").iterdir()) <= limit
    unpack(tmp_path / "pack", tmp_path / "back")
    for name in ARRAYS[3:]:
        assert (tmp_path / "back" / name).read_bytes() == (data / name).read_bytes(), "validation files stay"
    before, after = Split.read(data, "train"), Split.read(tmp_path / "back", "train")
    assert packed["kept"] == len(after.files) < 0.9 * len(before.files)
    share = len(after.files) / len(before.files)
    for language in LANGUAGES:
        [had, has] = [int((split.files["language"] == LANGUAGE_IDS[language]).sum()) for split in (before, after)]
        assert has == pytest.approx(share * had, abs=1)
    expected = choose(before.files, share)
    assert len(expected) == len(after.files)
    pairs = zip(before.rows(expected), after.rows(np.arange(len(after.files))), strict=True)
    for (tokens, spans), (tokens_back, spans_back) in pairs:
        assert np.array_equal(tokens, tokens_back) and np.array_equal(spans, spans_back)
    assert np.array_equal(before.files["project"][expected], after.files["project"])
    assert after.files["start"][0] == 0 and (after.files["start"][1:] == after.files["end"][:-1]).all()
    counted = json.loads((tmp_path / "back" / "meta.json").read_text())["splits"]["train"].values()
    for name, array in (("files", after.files), ("tokens", after.tokens), ("spans", after.spans)):
        assert sum(one[name] for one in counted) == len(array)
    assert len(TokenFiles(tmp_path / "back", tmp_path / "back" / "tokenizer.json", "train").file(3).tokens)


def test_a_larger_share_includes_a_smaller_one(data: Path) -> None:
    files = Split.read(data, "train").files
    assert set(choose(files, 0.3)) < set(choose(files, 0.6)) < set(choose(files, 1.0)) == set(range(120))


def test_spans_off_line_ends_are_refused(data: Path, tmp_path: Path) -> None:
    spans = np.load(data / "spans-train.npy")
    spans["end"][5] -= 1
    np.save(data / "spans-train.npy", spans)
    with pytest.raises(InputError, match="line ends"):
        pack(data, TOKENIZER, tmp_path / "pack", LIMIT)


def test_a_limit_below_the_validation_files_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--limit-mib"):
        pack(data, TOKENIZER, tmp_path / "pack", 1000)
    assert not (tmp_path / "pack").exists()


def test_missing_input_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train.tokenizer"):
        pack(data, tmp_path / "none.json", tmp_path / "pack", LIMIT)
    (data / "spans-valid.npy").unlink()
    with pytest.raises(InputError, match="spans-valid.npy"):
        pack(data, TOKENIZER, tmp_path / "pack", LIMIT)
    with pytest.raises(InputError, match="no pack"):
        unpack(tmp_path, tmp_path / "back")


@pytest.mark.parametrize("damage", ["short", "hole", "noise", "other"])
def test_a_damaged_pack_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(packing, "PIECE", 20_000)
    pack(data, TOKENIZER, tmp_path / "pack", LIMIT)
    pieces = sorted((tmp_path / "pack").iterdir())
    match damage:
        case "short":
            pieces[-1].unlink()
        case "hole":
            pieces[1].unlink()
        case "noise":
            pieces[1].write_bytes(pieces[1].read_bytes()[:-1] + b"?")
        case "other":
            pieces[0].write_bytes(b"no xz at all")
    with pytest.raises(InputError, match="copy all"):
        unpack(tmp_path / "pack", tmp_path / "back")
    assert not (tmp_path / "back").exists()

"""The prompt of masked models: the file with masks, between the tokens that begin and end a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import ModelError
from infill.code.context import ShownContext
from infill.prompts.families import load_family
from infill.prompts.masked import CONTEXT, MaskedPrompt
from infill.prompts.prompt import HoleKind
from infill.prompts.qwen2_tokenizer import folder_tokens
from tests.infill.tiny_coder import coder_tokens
from tests.infill.tiny_masked import save_dream, save_open_dcoder

LINE, BLOCK = HoleKind(True, False), HoleKind(False, True)


def family(folder: Path) -> MaskedPrompt:
    found = load_family("masked", folder)
    assert isinstance(found, MaskedPrompt)
    return found


def shown(prefix: str, suffix: str) -> ShownContext:
    return ShownContext(prefix=prefix, suffix=suffix, header="", language="python", path="a.py")


def sequence(prompt: MaskedPrompt, prefix: str, suffix: str, slots: int = 3) -> list[int]:
    layout = prompt.plan(shown(prefix, suffix), [LINE], ()).lay_out([slots])
    return [*layout.prompt, *layout.canvas.tokens.tolist()]


def test_the_tokenizer_in_parts_encodes_like_the_same_one_in_a_file(tmp_path: Path) -> None:
    tokens = folder_tokens(save_dream(tmp_path / "dream"))
    for text in ("def add(a, b):\n    return a + b\n", "é 日本 🙂\r\n\t x", "<|mask|> <|endoftext|>", ""):
        assert tokens.encode(text) == coder_tokens().encode(text)
        assert tokens.decode(tokens.encode(text)) == text


def test_dream_puts_masks_into_the_file_between_begin_and_end(tmp_path: Path) -> None:
    prompt = family(save_dream(tmp_path / "dream", grows=True))
    special = prompt.tokens.special
    found = sequence(prompt, "x = 1\ny = ", "\nz = 3\n")
    assert found[0] == special("<|beginoftext|>") and found[-1] == special("<|endoftext|>")
    holes = [index for index, token in enumerate(found) if token == -1]
    assert holes == list(range(holes[0], holes[0] + 3))
    assert prompt.tokens.decode(found[1 : holes[0]]) == "x = 1\ny ="
    assert prompt.tokens.decode(found[holes[-1] + 1 : -1]) == "\nz = 3\n"
    assert prompt.grows and prompt.null_token == special("<|endoftext|>")


def test_open_dcoder_has_neither(tmp_path: Path) -> None:
    prompt = family(save_open_dcoder(tmp_path / "open"))
    assert prompt.tokens.decode([token for token in sequence(prompt, "x = (", ")\n") if token >= 0]).startswith("x =")
    assert not prompt.grows and prompt.null_token is None
    empty = sequence(prompt, "", "\n")
    assert empty[0] == prompt.tokens.special("<|endoftext|>"), "something must come before the first mask"


def test_no_special_token_and_no_unused_row_may_be_written(tmp_path: Path) -> None:
    for folder in (save_dream(tmp_path / "on", grows=True), save_dream(tmp_path / "dream")):
        prompt = family(folder)
        added = set(json.loads((folder / "added_tokens.json").read_text("utf-8")).values())
        rows = json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"]
        banned = set(prompt.plan(shown("a", "b"), [LINE], ()).banned.tolist())
        assert added - {prompt.null_token} <= banned and set(range(len(prompt.tokens.bytes_of), rows)) <= banned
        assert set(prompt.line_breaks) <= banned
        assert not set(prompt.line_breaks) & set(prompt.plan(shown("a", "b"), [BLOCK], ()).banned.tolist())


def test_long_files_are_cut_to_the_context_of_the_model(tmp_path: Path) -> None:
    prompt = family(save_dream(tmp_path / "dream", grows=True))
    long = "".join(f"value_{number} = {number}\n" for number in range(5000))
    found = sequence(prompt, long, long)
    assert CONTEXT // 2 < len(found) < CONTEXT - 256
    small = family(save_dream(tmp_path / "small", max_position_embeddings=256))
    assert len(sequence(small, long, long)) < 256


def test_a_folder_without_the_token_that_it_names_is_refused(tmp_path: Path) -> None:
    folder = save_dream(tmp_path / "dream")
    names = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "bos_token": "<|nothing|>"}), "utf-8")
    with pytest.raises(ModelError, match="no token"):
        family(folder)


@pytest.mark.parametrize("damage", ['{"a": 0, "b": 0}', '{"a": -1}', "[]", "{"])
def test_a_damaged_vocabulary_is_an_error(tmp_path: Path, damage: str) -> None:
    folder = save_dream(tmp_path / "dream")
    (folder / "vocab.json").write_text(damage, "utf-8")
    with pytest.raises(ModelError, match="damaged"):
        folder_tokens(folder)

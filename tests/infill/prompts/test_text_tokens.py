"""Text to tokens and back without loss; text never becomes a special token."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from engine.errors import ModelError
from infill.prompts.text_tokens import LONGEST_RECENT, RECENT_TEXTS, TextTokens
from infill.prompts.tokenizer_file import CODE_PATTERN, is_bounded
from tests.infill.fakes import chat_tokenizer, pocket_tokens

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@given(TEXTS)
def test_any_text_round_trips(text: str) -> None:
    tokens = pocket_tokens()
    assert tokens.decode(tokens.encode(text)) == text


@pytest.mark.parametrize("text", ["\t\tx\n", "a\n\n\n    b", "größe = '日本 😀'", "x" * 5000, "", " ", "a\rb"])
def test_unusual_texts_round_trip(text: str) -> None:
    tokens = pocket_tokens()
    assert tokens.decode(tokens.encode(text)) == text


def test_a_lone_surrogate_is_one_replacement_character_and_a_pair_is_its_character() -> None:
    tokens = pocket_tokens()
    assert tokens.decode(tokens.encode("a\ud800b")) == "a\ufffdb"
    assert tokens.decode(tokens.encode("a\ud83d\ude00b")) == "a😀b"


def test_the_tokens_of_long_texts_are_not_kept() -> None:
    tokens = TextTokens(pocket_tokens().tokenizer)
    encoded = list[int]()
    encode = tokens._encode

    def counted(text: str) -> tuple[int, ...]:
        encoded.append(len(text))
        return encode(text)

    tokens._recently_encoded = lru_cache(RECENT_TEXTS)(counted)
    long = "x = 1\n" * (LONGEST_RECENT // 6 + 1)
    for text in (long[:-6], long, long[:-6], long):
        assert tokens.decode(tokens.encode(text)) == text
    assert encoded == [len(long) - 6]


def test_text_that_looks_like_special_tokens_stays_text() -> None:
    tokens = pocket_tokens()
    text = 'mark = "<|null|><|mask|><bos>"  # <|suffix|>'
    encoded = tokens.encode(text)
    assert not set(encoded) & set(tokens.specials)
    assert tokens.decode(encoded) == text


def test_special_tokens_have_no_text() -> None:
    tokens = pocket_tokens()
    null = tokens.special("<|null|>")
    assert tokens.decode([null, *tokens.encode("x"), null]) == "x"
    assert null in tokens.specials


def test_a_missing_token_is_named() -> None:
    with pytest.raises(ModelError, match="<\\|turn>"):
        pocket_tokens().special("<|turn>")


def test_starting_with_finds_every_token_with_that_prefix() -> None:
    tokens = pocket_tokens()
    for start in ("re", "\n", " ", "é"):
        found = tokens.starting_with(start).tolist()
        expected = {token for token, piece in enumerate(tokens.bytes_of) if piece and piece.startswith(start.encode())}
        assert len(found) == len(expected) and set(found) == expected
        one = tokens.starting_with(start, line_breaks=1).tolist()
        assert set(one) == {token for token in expected if tokens.bytes_of[token].count(b"\n") == 1}
    assert len(tokens.starting_with("there is no such token at all")) == 0
    assert len(tokens.starting_with("")) == sum(map(bool, tokens.bytes_of))
    last = max(tokens.bytes_of)
    assert tokens.bytes_of[tokens.starting_with(last).tolist()[0]] == last


def test_line_breaks_are_the_tokens_with_a_line_feed() -> None:
    tokens = pocket_tokens()
    assert set(tokens.encode("\n")) <= set(tokens.line_breaks)
    assert not set(tokens.encode("x = 1")) & set(tokens.line_breaks)


def test_a_vocabulary_with_byte_pieces_and_visible_spaces(tmp_path: Path) -> None:
    """As in SentencePiece, where letters such as Ā, Ċ and Ġ are themselves and not bytes."""
    pieces = ["<bos>", "▁x", "▁", "x", "Ā", "Ċ", "Ġ", "<0x0A>", "<0xE2>", "<0x82>", "<0xAC>"]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, []))
    tokenizer.add_special_tokens(["<bos>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokens = TextTokens.read(tmp_path / "tokenizer.json")
    assert tokens.decode([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) == " x xĀĊĠ\n€"
    assert tokens.line_breaks == [7]


def test_a_missing_or_broken_tokenizer_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gesso model pull"):
        TextTokens.read(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        TextTokens.read(tmp_path / "tokenizer.json")


def test_the_special_tokens_of_the_chat_model_keep_their_ids(tmp_path: Path) -> None:
    tokens = TextTokens.read(chat_tokenizer(tmp_path))
    assert [tokens.special(name) for name in ("<bos>", "<|turn>", "<turn|>", "<|channel>")] == [
        2,
        105,
        106,
        100,
    ]
    assert tokens.decode(tokens.encode("return <|turn>\n\n")) == "return <|turn>\n\n"


def _crafted(folder: Path, **parts: object) -> Path:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model, **parts}))
    return folder / "tokenizer.json"


@pytest.mark.parametrize(
    "parts",
    [
        {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"], "continuing_subword_prefix": "long"}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"model": {"type": "BPE", "vocab": {"a": 2**32 - 1}, "merges": []}},
        {"model": None},
    ],
    ids=["panic in the model", "panic in the normalizer", "large id", "no model"],
)
def test_a_crafted_tokenizer_is_a_model_error(tmp_path: Path, parts: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="gesso model pull"):
        TextTokens.read(_crafted(tmp_path, **parts))


def test_a_file_that_is_not_regular_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to("/dev/zero")
    with pytest.raises(ModelError):
        TextTokens.read(tmp_path / "tokenizer.json")


def test_padding_and_truncation_of_the_file_do_not_apply(tmp_path: Path) -> None:
    padding = {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    truncation = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    file = _crafted(tmp_path, padding={**padding, "pad_type_id": 0, "pad_token": "a"}, truncation=truncation)
    assert TextTokens.read(file).encode("abb") == [2, 1]


def test_a_tokenizer_that_fails_on_a_text_is_a_model_error_without_the_text(tmp_path: Path) -> None:
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "none"}
    with pytest.raises(ModelError, match="The model's tokenizer failed") as caught:
        TextTokens.read(_crafted(tmp_path, model=model)).encode("secret")
    assert "secret" not in str(caught.value)


def split(expression: str) -> dict[str, object]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def replace(text: str, content: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": {"String": text}, "content": content}


def steps(kind: str, name: str, *inner: object) -> dict[str, object]:
    return {kind: {"type": "Sequence", name: [*inner]}}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
ENDLESS = {
    "nested repetition": {"pre_tokenizer": split("(a+)+b")},
    "competing repetition": {"pre_tokenizer": split(r"[\s\S]*[\s\S]*x")},
    "many optional parts": {"pre_tokenizer": split("a?" * 23 + "a" * 23)},
    "repetition of a repetition": {"pre_tokenizer": split("(?:a{1,999}){1,999}")},
    "repetition by a number": {"pre_tokenizer": split("a{1,99}+b")},
    "a reference": {"pre_tokenizer": split(r"(?<x>a|b\g<x>c)")},
    "a long expression": {"pre_tokenizer": split("a" * 5000)},
    "an expression in the normalizer": {
        "normalizer": {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": ""}
    },
    "text that doubles": steps("normalizer", "normalizers", *[replace("a", "aa")] * 10),
    "text that grows": {"normalizer": replace("a", "a" * 1000)},
    "a long beginning": {"normalizer": {"type": "Prepend", "prepend": "a" * 1000}},
    "bytes as bytes": steps("pre_tokenizer", "pretokenizers", *[BYTES] * 10),
    "many steps": steps("normalizer", "normalizers", *[{"type": "NFC"}] * 1000),
    "an unknown step": {"normalizer": {"type": "Endless"}},
    "an empty pattern": {"normalizer": replace("", "a")},
    "no tokens": {"model": {"type": "BPE", "vocab": {}, "merges": []}},
    "a name twice": None,
    "deep nesting": None,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_tokenizer_that_could_take_endless_time_is_refused(tmp_path: Path, name: str) -> None:
    parts = ENDLESS[name]
    file = _crafted(tmp_path, **(parts or {}))
    if name == "a name twice":
        file.write_text('{"normalizer": null, "normalizer": {"type": "NFC"}, "model": {"type": "BPE"}}')
    if name == "deep nesting":
        file.write_text("[" * 1_000_000)
    with pytest.raises(ModelError, match="gesso model pull"):
        TextTokens.read(file)


@pytest.mark.parametrize(
    "expression",
    [
        CODE_PATTERN,
        "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
        "[一-龥ࠀ-一가-퟿]+",
        "[\r\n]",
        "\\s?\\p{P}+",
        "\\p{N}{1,3}",
    ],
)
def test_the_expressions_of_published_tokenizers_are_read(expression: str) -> None:
    assert is_bounded(expression)


def test_the_steps_of_published_tokenizers_are_read(tmp_path: Path) -> None:
    gemma = {
        "normalizer": replace(" ", "▁"),
        "pre_tokenizer": {"type": "Split", **split("a"), "pattern": {"String": " "}},
    }
    assert TextTokens.read(_crafted(tmp_path, **gemma)).encode("ab") == [2]
    qwen = {"normalizer": {"type": "NFC"}, **steps("pre_tokenizer", "pretokenizers", split(CODE_PATTERN), BYTES)}
    assert TextTokens.read(_crafted(tmp_path, **qwen)).encode("ab") == [2]


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    tokens = TextTokens.read(_crafted(tmp_path))
    tokens.check_fits(3)
    assert tokens.decode([2, 7, 0]) == "aba", "a token that only the model has"
    with pytest.raises(ModelError, match="a token 2, but the model only 2 tokens"):
        tokens.check_fits(2)

"""Prepared arrays: files, offsets, and spans of whole lines."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from engine.errors import InputError
from train.prepare import (
    BLOCK,
    STATEMENT,
    byte_lengths,
    code_spans,
    prepare,
    token_spans,
)
from train.tokenizer import LANGUAGE_IDS, load_tokenizer, train_tokenizer

PYTHON = '''\
# größe 日本 😀
import os


class Größe:
    """Says nothing."""

    def weite(self, 日本):
        if 日本:
            x = "é" + 日本  # a comment follows
            return x
        for item in self:
            print(item); print("two")
        self.last = [
            1,
            2,
        ]
        pass
'''
SOURCES = {
    "javascript": "function f(a) {\n  const x = '日本';\n  if (a) {\n    g();\n    return 1;\n  }\n}\n",
    "typescript": "class A {\n  f(): number {\n    let x: number = 1;\n    return x;\n  }\n}\n",
    "tsx": "const A = () => {\n  const x = 1;\n  return <div>{x}</div>;\n};\n",
    "go": "package a\n\nfunc f() int {\n\tx := 1\n\tx++\n\treturn x\n}\n",
    "rust": "fn f() -> u8 {\n    let x = 1;\n    if x > 0 {\n        g();\n        h();\n    }\n    x\n}\n",
    "java": "class A {\n    int f() {\n        int x = 1;\n        return x;\n    }\n}\n",
    "c": "#include <a.h>\nint f(void) {\n    int x = 1;\n    return x;\n}\n",
    "cpp": "int f() {\n  auto x = 1;\n  return x;\n}\n",
}


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer([PYTHON, *SOURCES.values(), Path(__file__).read_text()] * 3, 400).save(str(path))
    return path


@pytest.fixture(scope="module")
def tokenizer(tokenizer_path: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_path)


def texts(source: str, language: str) -> set[tuple[int, str]]:
    raw = source.encode()
    return {(kind, raw[start:end].decode()) for start, end, kind in code_spans(raw, language)}


def test_python_spans() -> None:
    found = texts(PYTHON, "python")
    assert (STATEMENT, "\nimport os") in found
    assert (STATEMENT, "\n            return x") in found
    assert (STATEMENT, "\n        self.last = [\n            1,\n            2,\n        ]") in found
    assert (BLOCK, '\n            x = "é" + 日本  # a comment follows\n            return x') in found
    statements = "".join(text for kind, text in found if kind == STATEMENT)
    assert "Says nothing" not in statements, "a docstring is not a statement"
    assert "print" not in statements, "two statements share a line"
    assert '"é"' not in statements, "a comment after the statement"


@pytest.mark.parametrize(
    ("language", "statement", "block"),
    [
        ("javascript", "\n  const x = '日本';", "\n    g();\n    return 1;"),
        ("typescript", "\n    return x;", "\n    let x: number = 1;\n    return x;"),
        ("tsx", "\n  return <div>{x}</div>;", "\n  const x = 1;\n  return <div>{x}</div>;"),
        ("go", "\n\tx++", "\n\tx := 1\n\tx++\n\treturn x"),
        ("rust", "\n    let x = 1;", "\n        g();\n        h();"),
        ("java", "\n        int x = 1;", "\n        int x = 1;\n        return x;"),
        ("c", "\n    return x;", "\n    int x = 1;\n    return x;"),
        ("cpp", "\n  auto x = 1;", "\n  auto x = 1;\n  return x;"),
    ],
)
def test_spans_of_other_languages(language: str, statement: str, block: str) -> None:
    found = texts(SOURCES[language], language)
    assert (STATEMENT, statement) in found
    assert (BLOCK, block) in found


def test_a_header_is_not_a_statement() -> None:
    for language, source in SOURCES.items():
        for kind, text in texts(source, language):
            assert kind == BLOCK or not text.strip().startswith(("if", "for", "func", "fn", "class")), text


def test_text_has_no_spans() -> None:
    assert code_spans(b"\nwords\n", "text") == []


def test_byte_lengths(tokenizer: Tokenizer) -> None:
    lengths = byte_lengths(tokenizer)
    assert not lengths[:32].any()
    assert (lengths[32:288] == 1).all()
    for text in (PYTHON, "é😀\x00\r\n"):
        assert lengths[tokenizer.encode(text, add_special_tokens=False).ids].sum() == len(text.encode())


def test_token_spans_agree_with_bytes(tokenizer: Tokenizer) -> None:
    for language, source in {"python": PYTHON, **SOURCES}.items():
        ids = np.array(tokenizer.encode(source, add_special_tokens=False).ids, np.uint16)
        spans = token_spans(source.encode(), language, ids, byte_lengths(tokenizer))
        decoded = {
            (int(kind), tokenizer.decode(ids[start:end].tolist(), skip_special_tokens=False))
            for start, end, kind in spans
        }
        short = {(kind, text) for kind, text in texts(source, language) if len(tokenizer.encode(text).ids) <= 96}
        assert decoded == short and decoded
        assert (np.diff(spans["start"].astype(np.int64)) >= 0).all()


def test_long_spans_are_left_out(tokenizer: Tokenizer) -> None:
    source = "def f():\n" + "    x = 1\n" * 40 + "    y = [" + "1, " * 60 + "1]\n"
    ids = np.array(tokenizer.encode(source, add_special_tokens=False).ids, np.uint16)
    spans = token_spans(source.encode(), "python", ids, byte_lengths(tokenizer))
    assert len(spans) == 40
    with pytest.raises(ValueError, match="do not cover"):
        token_spans(source.encode(), "python", ids[:-1], byte_lengths(tokenizer))


def write_corpus(folder: Path) -> list[dict[str, str]]:
    records = [
        {
            "project": f"p{i % 3}",
            "language": language,
            "split": "valid" if i % 3 == 0 else "train",
            "text": text,
        }
        for i, (language, text) in enumerate([("python", PYTHON), *SOURCES.items(), ("text", "Words.\n")])
    ]
    for number, part in enumerate((records[:4], records[4:])):
        with gzip.open(folder / f"files-{number:03d}.jsonl.gz", "wt") as out:
            out.write("".join(json.dumps(record) + "\n" for record in part))
    return records


def test_prepare(tmp_path: Path, tokenizer_path: Path, tokenizer: Tokenizer) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    records = write_corpus(corpus)
    meta = prepare(corpus, tokenizer_path, out)
    assert json.loads((out / "meta.json").read_text()) == meta
    assert meta["tokenizer_sha256"] == hashlib.sha256(tokenizer_path.read_bytes()).hexdigest()
    assert meta["projects"] == ["p0", "p1", "p2"]
    for split in ("train", "valid"):
        tokens = np.fromfile(out / f"tokens-{split}.bin", "<u2")
        files, spans = np.load(out / f"files-{split}.npy"), np.load(out / f"spans-{split}.npy")
        expected = {
            (record["text"], LANGUAGE_IDS[record["language"]], record["project"])
            for record in records
            if record["split"] == split
        }
        found = {
            (
                tokenizer.decode(tokens[file["start"] : file["end"]].tolist(), skip_special_tokens=False),
                int(file["language"]),
                meta["projects"][file["project"]],
            )
            for file in files
        }
        assert found == expected
        assert files["start"][0] == 0 and files["end"][-1] == len(tokens)
        assert (files["start"][1:] == files["end"][:-1]).all()
        assert (np.diff(spans["start"].astype(np.int64)) >= 0).all() and len(spans)
        for span in spans:
            text = tokenizer.decode(tokens[span["start"] : span["end"]].tolist(), skip_special_tokens=False)
            [file] = files[(files["start"] <= span["start"]) & (span["end"] <= files["end"])]
            assert text[0] == "\n" and text.strip() and text == text.rstrip()
            after = tokens[span["end"] : file["end"]].tolist()
            assert not after or tokenizer.decode(after, skip_special_tokens=False).startswith("\n")
            assert 2 <= span["end"] - span["start"] <= 96
        assert sum(count["tokens"] for count in meta["splits"][split].values()) == len(tokens)
    before = (out / "tokens-train.bin").read_bytes()
    prepare(corpus, tokenizer_path, out)
    assert (out / "tokens-train.bin").read_bytes() == before, "a second run gives the same bytes"


def test_bad_input(tmp_path: Path, tokenizer_path: Path) -> None:
    with pytest.raises(InputError, match="no corpus"):
        prepare(tmp_path, tokenizer_path, tmp_path / "out")

"""Turns a corpus into the arrays that training reads: tokens, file bounds, and spans of statements and blocks.

Writes tokens-{split}.bin (uint16, all files in sequence), files-{split}.npy (FILE_TYPE), spans-{split}.npy (SPAN_TYPE,
absolute token offsets, sorted by start) and meta.json. Must not know a model or noise.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tree_sitter
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tokenizers import Tokenizer, pre_tokenizers

from engine.errors import InputError
from infill.code.languages import LANGUAGES
from train.corpus import read_corpus
from train.layout import BLOCK, STATEMENT
from train.program import reports_errors
from train.tokenizer import LANGUAGE_IDS, SPECIAL_TOKENS, load_tokenizer

console = Console(stderr=True)

FILE_TYPE = np.dtype([("start", "<u8"), ("end", "<u8"), ("language", "u1"), ("project", "<u4")])
SPAN_TYPE = np.dtype([("start", "<u8"), ("end", "<u8"), ("kind", "u1")])
SHORTEST, LONGEST = 2, 96  # tokens of a span
LONGEST_BYTES = 2000  # ordinary code of 96 tokens is shorter
BATCH_FILES = 256

_SCRIPT = """
[(expression_statement) (lexical_declaration) (variable_declaration) (return_statement) (throw_statement)
 (break_statement) (continue_statement) (import_statement)] @statement
[(statement_block) (class_body)] @block
"""
_C = """
[(expression_statement) (declaration) (field_declaration) (type_definition) (return_statement)
 (break_statement) (continue_statement) (goto_statement) (preproc_include) (preproc_def)] @statement
(compound_statement) @block
"""
QUERIES = {
    "python": """
[(expression_statement) (return_statement) (import_statement) (import_from_statement)
 (future_import_statement) (raise_statement) (assert_statement) (delete_statement) (global_statement)
 (nonlocal_statement) (pass_statement)
 (break_statement) (continue_statement) (type_alias_statement)] @statement
(expression_statement . (string) .) @excluded
(block) @block
""",
    "javascript": _SCRIPT,
    "typescript": _SCRIPT + "(type_alias_declaration) @statement",
    "tsx": _SCRIPT + "(type_alias_declaration) @statement",
    "go": """
[(expression_statement) (short_var_declaration) (assignment_statement) (return_statement) (inc_statement)
 (dec_statement) (defer_statement) (go_statement) (var_declaration) (const_declaration) (import_declaration)
 (send_statement) (break_statement) (continue_statement)] @statement
(block) @block
""",
    "rust": """
[(expression_statement) (let_declaration) (use_declaration) (const_item) (static_item)] @statement
(expression_statement [(if_expression) (match_expression) (for_expression) (while_expression)
 (loop_expression) (unsafe_block) (block)]) @excluded
(block) @block
""",
    "java": """
[(expression_statement) (local_variable_declaration) (field_declaration) (return_statement) (throw_statement)
 (import_declaration) (assert_statement) (break_statement) (continue_statement)] @statement
[(block) (class_body) (constructor_body)] @block
""",
    "c": _C,
    "cpp": _C + "(using_declaration) @statement",
}
_LINE_START = re.compile(rb"\n[ \t]*")


@cache
def _grammar(language: str) -> tuple[tree_sitter.Parser, tree_sitter.Query]:
    grammar = LANGUAGES[language].grammar()
    if grammar is None:
        raise InputError(f"The grammar of {language} is not installed; run `pip install gesso` again.")
    return tree_sitter.Parser(grammar), tree_sitter.Query(grammar, QUERIES[language])


def byte_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """Bytes of text of each token: int64 [vocabulary]; 0 for special tokens."""
    lengths = np.zeros(tokenizer.get_vocab_size(), np.int64)
    for token, index in tokenizer.get_vocab().items():
        lengths[index] = 0 if index < len(SPECIAL_TOKENS) else len(token)
    assert len(pre_tokenizers.ByteLevel.alphabet()) == 256  # each character of a token is one byte
    return lengths


def code_spans(source: bytes, language: str) -> list[tuple[int, int, int]]:
    """(start, end, kind) in bytes of the statements and blocks that have lines of their own.

    A span starts at the line end before its first line and ends at the end of its last line. A block in braces is the
    part inside them. A docstring is not a statement; a block of one statement is a statement.
    """
    if language not in QUERIES:
        return []
    parser, query = _grammar(language)
    captures = tree_sitter.QueryCursor(query).captures(parser.parse(source).root_node)
    line_starts = {found.end(): found.start() for found in _LINE_START.finditer(source)}
    excluded = {(node.start_byte, node.end_byte) for node in captures.get("excluded", ())}
    spans: dict[tuple[int, int], int] = {}
    for kind, name in ((STATEMENT, "statement"), (BLOCK, "block")):
        for node in captures.get(name, ()):
            first, last = node.start_byte, node.end_byte
            if last - first > LONGEST_BYTES or (first, last) in excluded:
                continue
            inside = source[first:last]
            if kind == BLOCK and inside[:1] == b"{":
                if inside[-1:] != b"}":
                    continue
                inside = inside[1:-1]
                first += 1 + len(inside) - len(inside.lstrip())
                inside = inside.lstrip()
            last = first + len(inside.rstrip())
            start = line_starts.get(first)
            if start is not None and last > first and source[last : last + 1] in (b"\n", b""):
                spans.setdefault((start, last), kind)
    return sorted((start, end, kind) for (start, end), kind in spans.items())


def token_spans(source: bytes, language: str, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The spans of one file as token offsets into `ids` (SPAN_TYPE, sorted), of SHORTEST to LONGEST tokens.

    lengths: from `byte_lengths`. Raises ValueError if the tokens do not cover the source.
    """
    bounds = np.concatenate([[0], np.cumsum(lengths[ids])])
    if bounds[-1] != len(source):
        raise ValueError("the tokens do not cover the source")
    found = np.array(code_spans(source, language), np.int64).reshape(-1, 3)
    starts, ends = np.searchsorted(bounds, found[:, 0]), np.searchsorted(bounds, found[:, 1])
    good = (bounds[starts] == found[:, 0]) & (bounds[ends] == found[:, 1])
    good &= (ends - starts >= SHORTEST) & (ends - starts <= LONGEST)
    spans = np.zeros(int(good.sum()), SPAN_TYPE)
    spans["start"], spans["end"], spans["kind"] = starts[good], ends[good], found[good, 2]
    return spans


def _prepare_shard(shard: Path, tokenizer_path: Path, part: Path) -> None:
    """Writes tokens, files and spans of one shard to `part`: all splits together, offsets within the shard."""
    if part.exists():
        return
    os.environ["RAYON_NUM_THREADS"] = "1"
    tokenizer = load_tokenizer(tokenizer_path)
    lengths = byte_lengths(tokenizer)
    tokens: list[np.ndarray] = []
    spans: list[np.ndarray] = []
    files: list[tuple[int, int]] = []
    about: list[tuple[str, str, str]] = []
    position = 0
    records = list(read_corpus(shard))
    for at in range(0, len(records), BATCH_FILES):
        batch = records[at : at + BATCH_FILES]
        encodings = tokenizer.encode_batch_fast([record["text"] for record in batch], add_special_tokens=False)
        for record, encoding in zip(batch, encodings, strict=True):
            ids = np.array(encoding.ids, np.uint16)
            found = token_spans(record["text"].encode(), record["language"], ids, lengths)
            found["start"] += position
            found["end"] += position
            tokens.append(ids)
            spans.append(found)
            files.append((position, position + len(ids)))
            about.append((record["split"], record["language"], record["project"]))
            position += len(ids)
    partial = part.with_suffix(".partial")
    with partial.open("wb") as out:
        np.savez(
            out,
            tokens=np.concatenate([np.zeros(0, np.uint16), *tokens]),
            spans=np.concatenate([np.zeros(0, SPAN_TYPE), *spans]),
            files=np.array(files, np.int64).reshape(-1, 2),
            about=np.array(about, dtype=np.str_).reshape(-1, 3),
        )
    partial.replace(part)


def assemble(parts: list[Path], out: Path, split: str, projects: list[str]) -> dict[str, dict[str, int]]:
    """Writes one split from the parts and returns counts by language. The train split is shuffled with a fixed seed."""
    loaded = [dict(np.load(part)) for part in parts]
    order = [(p, f) for p, part in enumerate(loaded) for f in np.flatnonzero(part["about"][:, 0] == split)]
    if split == "train":
        order = [order[i] for i in np.random.default_rng(0).permutation(len(order))]
    index = {name: i for i, name in enumerate(projects)}
    files = np.zeros(len(order), FILE_TYPE)
    spans, position = [np.zeros(0, SPAN_TYPE)], 0
    counts: dict[str, dict[str, int]] = {}
    with (out / f"tokens-{split}.bin").open("wb") as sink:
        for row, (p, f) in enumerate(order):
            part = loaded[p]
            start, end = part["files"][f]
            _, language, project = part["about"][f]
            sink.write(part["tokens"][start:end].astype("<u2").tobytes())
            low, high = np.searchsorted(part["spans"]["start"], [start, end])
            moved = part["spans"][low:high].copy()
            moved["start"] = moved["start"] - np.uint64(start) + np.uint64(position)
            moved["end"] = moved["end"] - np.uint64(start) + np.uint64(position)
            spans.append(moved)
            files[row] = (position, position + end - start, LANGUAGE_IDS[language], index[project])
            count = counts.setdefault(str(language), {"files": 0, "tokens": 0, "spans": 0})
            count["files"] += 1
            count["tokens"] += int(end - start)
            count["spans"] += len(moved)
            position += int(end - start)
    np.save(out / f"files-{split}.npy", files)
    np.save(out / f"spans-{split}.npy", np.concatenate(spans))
    return counts


def prepare(corpus: Path, tokenizer_path: Path, out: Path) -> dict[str, Any]:
    """Prepares a whole corpus and returns the content of meta.json. Reuses the parts of an interrupted run."""
    shards = sorted(corpus.glob("files-*.jsonl.gz"))
    if not shards:
        raise InputError(f"There is no corpus in {corpus}; make one with `python -m train.corpus --out {corpus}`.")
    tokenizer = load_tokenizer(tokenizer_path)
    if tokenizer.get_vocab_size() > 2**16:
        raise InputError("The vocabulary does not fit into 16 bits; use a tokenizer of at most 65,536 entries.")
    fingerprint = hashlib.sha256(tokenizer_path.read_bytes()).hexdigest()
    (out / "parts").mkdir(parents=True, exist_ok=True)
    parts = []
    with (
        Progress(console=console) as progress,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
    ):
        task = progress.add_task("tokenizing", total=len(shards))
        jobs = []
        for shard in shards:
            key = hashlib.sha256(fingerprint.encode() + shard.read_bytes()).hexdigest()[:16]
            parts.append(out / "parts" / f"{key}.npz")
            jobs.append(pool.submit(_prepare_shard, shard, tokenizer_path, parts[-1]))
        for job in jobs:
            job.result()
            progress.advance(task)
    projects = sorted({str(name) for part in parts for name in np.load(part)["about"][:, 2]})
    meta = {
        "vocabulary": tokenizer.get_vocab_size(),
        "tokenizer_sha256": fingerprint,
        "splits": {split: assemble(parts, out, split, projects) for split in ("train", "valid")},
        "projects": projects,
    }
    (out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    return meta


def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by train.corpus.")],
    tokenizer: Annotated[Path, typer.Option(help="File written by train.tokenizer.")],
    out: Annotated[Path, typer.Option(help="Folder of the arrays; an interrupted run continues there.")],
) -> None:
    """Tokenize a corpus and find its spans."""
    meta = prepare(corpus, tokenizer, out)
    table = Table("split", "language", "files", "M tokens", "k spans")
    for split, counts in meta["splits"].items():
        for language, count in sorted(counts.items(), key=lambda item: -item[1]["tokens"]):
            million, thousand = f"{count['tokens'] / 1e6:.2f}", f"{count['spans'] / 1e3:.1f}"
            table.add_row(split, language, f"{count['files']:,}", million, thousand)
    console.print(table)


if __name__ == "__main__":
    typer.run(reports_errors(main))

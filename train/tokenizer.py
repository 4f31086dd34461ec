"""Trains the pocket model's tokenizer: byte-level BPE whose tokens do not cross lines, digits or brackets.

Must not know how models are trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from engine.errors import InputError
from train.corpus import read_corpus
from train.program import reports_errors

console = Console(stderr=True)

VOCABULARY = 8192
LANGUAGES = ("text", "python", "javascript", "typescript", "tsx", "go", "rust", "java", "c", "cpp")
SPECIAL_TOKENS = [
    "<pad>", "<eos>", "<bos>", "<|null|>", "<|mask|>",
    "<|path|>", "<|suffix|>", "<|prefix|>", "<|canvas|>", "<|neighbour|>",
    *(f"<|reserved_{i}|>" for i in range(6)),
    *(f"<|{language}|>" for language in LANGUAGES), *(f"<|reserved_{i}|>" for i in range(6, 12)),
]  # fmt: skip
LANGUAGE_IDS = {language: SPECIAL_TOKENS.index(f"<|{language}|>") for language in LANGUAGES}
SAMPLE_MB = {  # text of each language from which the merges are learned
    "python": 22.0, "javascript": 4.0, "typescript": 3.0, "tsx": 1.0, "go": 2.0, "rust": 2.5, "java": 2.0,
    "c": 2.0, "cpp": 2.0, "text": 1.0,
}  # fmt: skip

_WORD = r"\p{L}\p{M}_"
_BRACKET = r"()\[\]{}"
_OPERATOR = r"=<>!+\-*/%&|^~?@#$\\"
PATTERN = "|".join(
    [
        r"\n[ \t]*",  # a line end and the indentation after it
        r"\p{Nd}",
        rf" ?[{_WORD}]+",
        rf" ?[{_BRACKET}]",
        r'"""' + r"|'''|[\"'`]",
        r"\.\.\.|::|[,;:.]",
        rf" ?[{_OPERATOR}]+",
        rf"[^\S\n]+(?![{_WORD}{_BRACKET}{_OPERATOR}])",  # leaves the last space to the token after it
        r"[^\S\n]+",
    ]
)


def untrained() -> Tokenizer:
    """The tokenizer with its splitting rules and no merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """A tokenizer of exactly `vocabulary` entries: the special tokens, the 256 bytes, then the merges.

    Raises InputError if the texts do not yield enough merges.
    """
    tokenizer = untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=console.is_terminal,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocabulary:
        raise InputError(f"The text yields {tokenizer.get_vocab_size()} entries, not {vocabulary}: use more text.")
    tokenizer.encode_special_tokens = True
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """A saved tokenizer. Text that spells a special token is encoded as plain text."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception
        raise InputError(f"{path} is not a tokenizer; make one with `python -m train.tokenizer`.") from error
    tokenizer.encode_special_tokens = True
    return tokenizer


def balanced_sample(corpus: Path) -> Iterator[str]:
    """Texts of the train split, about SAMPLE_MB of each language, chosen by a hash of project and path."""
    totals: dict[str, int] = {}
    for record in read_corpus(corpus, "train"):
        totals[record["language"]] = totals.get(record["language"], 0) + len(record["text"])
    for record in read_corpus(corpus, "train"):
        share = SAMPLE_MB[record["language"]] * 1e6 / totals[record["language"]]
        digest = hashlib.sha256(f"{record['project']}/{record['path']}".encode()).digest()
        if int.from_bytes(digest[:8], "big") < share * 2**64:
            yield record["text"]


def bytes_per_token(tokenizer: Tokenizer, records: Iterable[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """(bytes, tokens) by language. Raises InputError if decoding does not restore a text."""
    sizes: dict[str, tuple[int, int]] = {}
    for record in records:
        text = record["text"]
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if tokenizer.decode(ids, skip_special_tokens=False) != text:
            raise InputError(
                f"Decoding does not restore {record['path']} of {record['project']}; report this bug in the tokenizer."
            )
        size, tokens = sizes.get(record["language"], (0, 0))
        sizes[record["language"]] = (size + len(text.encode()), tokens + len(ids))
    return sizes


def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by train.corpus.")],
    out: Annotated[Path, typer.Option(help="Tokenizer file to write.")],
    vocab: Annotated[int, typer.Option(help="Size of the vocabulary.")] = VOCABULARY,
) -> None:
    """Train the tokenizer and show its bytes per token on the valid split."""
    with console.status("learning merges"):
        tokenizer = train_tokenizer(balanced_sample(corpus), vocab)
    out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out))
    with console.status("measuring"):
        sizes = bytes_per_token(load_tokenizer(out), read_corpus(corpus, "valid"))
    table = Table("language", "MB", "M tokens", "bytes per token", title="valid split")
    for language, (size, tokens) in sorted(sizes.items(), key=lambda item: -item[1][0]):
        table.add_row(language, f"{size / 1e6:.2f}", f"{tokens / 1e6:.3f}", f"{size / tokens:.3f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(reports_errors(main))

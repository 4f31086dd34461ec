"""Reads a `tokenizer.json`, and refuses one that could take endless time or memory for a short text.

The file chooses regular expressions, and rules that replace text by longer text, so that one from a stranger could keep
a processor busy for hours, in a library that nothing can interrupt. Known here is what code models use: byte-level or
byte-fallback BPE, and expressions without nested or competing repetition. Must not know prompts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from engine.files import read_small_file, unique_names

MOST_BYTES = 40 << 20  # that of the 26B has 32 MB
MOST_STEPS, MOST_EXPRESSION = 16, 2000  # of normalizer and pre-tokenizer; characters
MOST_GROWTH = 64  # characters for each that is replaced
CODE_PATTERN = (  # Qwen2.5-Coder's, whose repetitions do not compete
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Replace", "Prepend", "Strip", "StripAccents", "Lowercase", "Sequence")
PRE_TOKENIZERS = (
    "ByteLevel",
    "Split",
    "Sequence",
    "Metaspace",
    "Whitespace",
    "WhitespaceSplit",
    "Digits",
    "Punctuation",
)
_ATOM = re.compile(  # a character, an escape, or a class, with its repetition
    r"(?:\\[pP]\{\^?\w+\}|\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[^\d\W]|\\\W|\[\^?\]?(?:\\.|[^\\\]])+\]|[^\\\[\]()|*+?{}])"
    r"([*+?][+?]?|\{\d{1,3}(?:,\d{0,3})?\})?"
)
_GROUP = re.compile(r"\((?!\?)|\(\?(?:[:=!]|i:)")
_SPECIAL_ESCAPES = ("\\g", "\\k", "\\G", "\\K", "\\R", "\\X", "\\y", "\\Y")


def read_tokenizer(file: Path) -> Tokenizer:
    """Raises OSError, ValueError, and whatever the library raises for a damaged file."""
    content = read_small_file(file, MOST_BYTES)
    check_tokenizer(json.loads(content, object_pairs_hook=unique_names))
    return Tokenizer.from_buffer(content)


def check_tokenizer(content: Any) -> None:
    """content: the object in a `tokenizer.json`. Raises ValueError."""
    if not isinstance(content, dict) or not isinstance(model := content.get("model"), dict):
        raise ValueError("it does not describe a tokenizer")
    affixes = (model.get("continuing_subword_prefix"), model.get("end_of_word_suffix"))
    if model.get("type", "BPE") != "BPE" or any(affixes):
        raise ValueError("its model is not BPE over bytes, which is the only one known")
    normalizers = [*_steps(content.get("normalizer"), NORMALIZERS)]
    pre_tokenizers = [*_steps(content.get("pre_tokenizer"), PRE_TOKENIZERS)]
    growth = 1.0
    for step in (*normalizers, *pre_tokenizers):
        pattern = step.get("pattern")
        replaced = 1
        if isinstance(pattern, Mapping):
            (kind, text), *_ = pattern.items()
            if not isinstance(text, str) or not text or (kind == "Regex" and not is_bounded(text)):
                raise ValueError(f"its expression {text!r:.60} may take endless time")
            replaced = 1 if kind == "Regex" else len(text)
        added = step.get("content") or step.get("prepend") or ""
        growth *= max(1.0, len(str(added)) / replaced)
    if growth > MOST_GROWTH or sum(step["type"] == "ByteLevel" for step in pre_tokenizers) > 1:
        raise ValueError("it makes text much longer")


def _steps(section: Any, known: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer or a pre-tokenizer, with those in sequences."""
    waiting, found = [section] if section is not None else [], 0
    while waiting:
        step, found = waiting.pop(), found + 1
        kind = step.get("type") if isinstance(step, dict) else None
        if kind not in known or found > MOST_STEPS:
            raise ValueError(f"its step {kind!r:.60} is not known" if found <= MOST_STEPS else "it has too many steps")
        yield step
        inner = [step.get(name) for name in ("normalizers", "pretokenizers")]
        waiting += [one for steps in inner if isinstance(steps, list) for one in steps[: MOST_STEPS + 1]]


def is_bounded(expression: str) -> bool:
    """Whether a search takes at most quadratic time: no group is repeated, and each alternative has at most one
    unbounded repetition and three of any kind."""
    if expression == CODE_PATTERN:
        return True
    if len(expression) > MOST_EXPRESSION or any(escape in expression for escape in _SPECIAL_ESCAPES):
        return False
    at = depth = repeated = unbounded = 0
    while at < len(expression):
        if group := _GROUP.match(expression, at):
            depth, at = depth + 1, group.end()
        elif expression[at] == ")":
            depth, at = depth - 1, at + 1
            if depth < 0 or expression[at : at + 1] in ("*", "+", "{"):
                return False
            optional = expression[at : at + 1] == "?"
            repeated, at = repeated + optional, at + optional
        elif expression[at] == "|":
            at += 1
            if not depth:
                repeated = unbounded = 0
        elif atom := _ATOM.match(expression, at):
            repeated += atom[1] is not None
            unbounded += (atom[1] or "?")[0] != "?"
            at = atom.end()
        else:
            return False
        if repeated > 3 or unbounded > 1:
            return False
    return depth == 0

"""Writes a data folder in the layout of train.prepare, with random files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from train.prepare import FILE_TYPE, SPAN_TYPE
from train.tokenizer import LANGUAGE_IDS

TOKENIZER = Path(__file__).parents[2] / "infill" / "models" / "pocket" / "tokenizer.json"
LANGUAGES = ("python", "go", "c")


def write_prepared(folder: Path, counts: dict[str, int], lines: tuple[int, int] = (1, 30)) -> None:
    """counts: files per split. Random tokens in lines of 1 to 12, languages and projects mixed. Spans of one to four
    lines, some nested, some up to the end of the file; some files have none."""
    rng = np.random.default_rng(0)
    vocab = Tokenizer.from_file(str(TOKENIZER)).get_vocab()
    newlines = np.array([token for piece, token in vocab.items() if piece.startswith("Ċ")])
    others = np.setdiff1d(np.arange(32, 8192), newlines)
    meta: dict[str, dict[str, dict[str, int]]] = {}
    for split, count in counts.items():
        tokens: list[int] = []
        files, spans = [], []
        meta[split] = {}
        for _ in range(count):
            start, bounds, name = len(tokens), [], LANGUAGES[rng.integers(3)]
            for line in range(rng.integers(*lines)):
                if line or rng.random() < 0.5:
                    bounds.append(len(tokens))
                    tokens.append(int(rng.choice(newlines)))
                tokens += rng.choice(others, rng.integers(1, 12)).tolist()
            bounds.append(len(tokens))
            found = {
                (bounds[first], bounds[min(first + int(size), len(bounds) - 1)], int(rng.integers(2, 4)))
                for first in range(0, len(bounds) - 1, int(rng.integers(1, 6)))
                for size in rng.integers(1, 5, 2)
            }
            found = found if rng.random() < 0.8 else set()
            spans += sorted(found)
            files.append((start, len(tokens), LANGUAGE_IDS[name], int(rng.integers(5))))
            one = meta[split].setdefault(name, {"files": 0, "tokens": 0, "spans": 0})
            one["files"] += 1
            one["tokens"] += len(tokens) - start
            one["spans"] += len(found)
        np.array(tokens, "<u2").tofile(folder / f"tokens-{split}.bin")
        np.save(folder / f"files-{split}.npy", np.array(files, FILE_TYPE))
        np.save(folder / f"spans-{split}.npy", np.array(spans, SPAN_TYPE))
    about = {"vocabulary": 8192, "splits": meta, "projects": [f"p{i}" for i in range(5)]}
    (folder / "meta.json").write_text(json.dumps(about, indent=1) + "\n")

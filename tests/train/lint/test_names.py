"""Lists of names from the training projects."""

import gzip
import json
from pathlib import Path

import pytest

from engine.errors import InputError
from train.lint.names import NAMES, WORDS, known_names, names_by_project


def test_names_count_once_per_project(tmp_path: Path) -> None:
    rows = [
        {"split": split, "project": project, "language": "python", "text": text}
        for split, project, text in (
            *(("train", f"p{number}", "foo_count = foo_count\n") for number in range(NAMES)),
            ("train", "p0", "only only only bar\n"),
            *(("valid", f"v{number}", "secret\n") for number in range(WORDS)),
        )
    ]
    with gzip.open(tmp_path / "files-000.jsonl.gz", "wt") as out:
        out.write("".join(json.dumps(row) + "\n" for row in rows))
    known, made = known_names(names_by_project(tmp_path))
    assert made == {"projects": NAMES, "names": 1, "words": 0, "common": 0}
    assert "foo_count" in known.names and "only" not in known.names and "secret" not in known.names
    with pytest.raises(InputError, match="no corpus"):
        names_by_project(tmp_path / "none")

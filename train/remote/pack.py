"""Packs prepared data into a few small files for a machine with little transfer, and unpacks them there.

`python -m train.remote.pack --data DIR/tokens --tokenizer FILE --out PACK` packs; `python -m train.remote.pack --unpack
PACK --out DIR/tokens` unpacks, without tree-sitter and with the standard library's LZMA. Must not know what the tokens
mean, except which of them begin a line.

Tokens take less space than their text. They are replaced by their frequency rank, ordered by language and project, and
compressed by LZMA with a window over all of them. Spans start and end at line ends, so they are stored as line counts.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import DownloadColumn, Progress
from tokenizers import Tokenizer

from engine.errors import InputError, UsageError
from train.data import line_starts
from train.program import reports_errors
from train.tokenizer import LANGUAGE_IDS

console = Console(stderr=True, highlight=False)

SPLITS = ("train", "valid")
PIECE = 15 << 20  # bytes of one file at most
LARGEST_WINDOW = 1 << 28
SPAN_RECORD = np.dtype([("skip", "<u2"), ("lines", "u1"), ("kind", "u1")])
LITERALS = {  # LZMA's lc, lp, pb: bits of the previous byte and of the position that predict a byte
    "tokens": (3, 1, 1),
    "spans": (2, 2, 2),
}
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Split:
    """The arrays of one split in the layout of train.prepare."""

    tokens: NDArray[np.uint16]
    files: NDArray[Any]
    spans: NDArray[Any]

    @staticmethod
    def read(folder: Path, split: str) -> Split:
        """Raises InputError if a file is missing."""
        paths = [folder / name for name in (f"tokens-{split}.bin", f"files-{split}.npy", f"spans-{split}.npy")]
        for path in paths:
            if not path.is_file():
                raise InputError(f"{folder} has no {path.name}; make it with `python -m train.prepare`.")
        return Split(np.fromfile(paths[0], "<u2"), np.load(paths[1]), np.load(paths[2]))

    def write(self, folder: Path, split: str) -> None:
        self.tokens.astype("<u2").tofile(folder / f"tokens-{split}.bin")
        np.save(folder / f"files-{split}.npy", self.files)
        np.save(folder / f"spans-{split}.npy", self.spans)

    def rows(self, chosen: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.uint16], NDArray[Any]]]:
        """(tokens, spans with offsets within the file) of each chosen file."""
        spans = {name: self.spans[name].astype(np.int64) for name in ("start", "end")}
        files = {name: self.files[name].astype(np.int64) for name in ("start", "end")}
        lows, highs = (np.searchsorted(spans["start"], files[name]) for name in ("start", "end"))
        for row in chosen:
            start, low, high = files["start"][row], lows[row], highs[row]
            found = self.spans[low:high].copy()
            for name, offsets in spans.items():
                found[name] = offsets[low:high] - start
            yield self.tokens[start : files["end"][row]], found

    def only(self, chosen: NDArray[np.int64]) -> Split:
        """A split with only the chosen files (ascending)."""
        if len(chosen) == len(self.files):
            return self
        return join([*self.rows(chosen)], self.files[chosen], self.spans.dtype)

    def counts(self, language: int) -> dict[str, int]:
        """Files, tokens and spans of a language, as in meta.json."""
        files = self.files[self.files["language"] == language]
        low, high = (np.searchsorted(self.spans["start"], files[name]) for name in ("start", "end"))
        tokens = files["end"] - files["start"]
        return {"files": len(files), "tokens": int(tokens.sum()), "spans": int((high - low).sum())}


def join(rows: list[tuple[NDArray[np.uint16], NDArray[Any]]], table: NDArray[Any], span_type: np.dtype[Any]) -> Split:
    """A split of files in sequence. rows: from `Split.rows`. table: with language and project of each file."""
    files, position = table.copy(), 0
    for row, (tokens, spans) in enumerate(rows):
        files[row]["start"], files[row]["end"] = position, position + len(tokens)
        for name in ("start", "end"):
            spans[name] += np.uint64(position)
        position += len(tokens)
    tokens = np.concatenate([np.zeros(0, "<u2"), *(tokens for tokens, _ in rows)])
    return Split(tokens, files, np.concatenate([np.zeros(0, span_type), *(spans for _, spans in rows)]))


def encode(split: Split, begins_line: NDArray[np.bool_]) -> Columns:
    """The columns of a pack: files ordered by language and project, spans as lines skipped and lines covered.

    Raises InputError if a span does not start and end at a line end or at the end of its file.
    """
    table = split.files
    order = np.lexsort((table["start"], table["project"], table["language"]))
    tokens, records, counts = [np.zeros(0, "<u2")], [np.zeros(0, SPAN_RECORD)], np.zeros(len(order), "<u4")
    for index, (ids, spans) in enumerate(split.rows(order)):
        bounds = np.append(np.flatnonzero(begins_line[ids]), len(ids))
        first, last = (np.searchsorted(bounds, spans[name].astype(np.int64)) for name in ("start", "end"))
        record = np.zeros(len(spans), SPAN_RECORD)
        record["skip"], record["lines"] = np.diff(first, prepend=0), last - first
        record["kind"] = spans["kind"]
        if not np.array_equal(_spans(record, bounds, spans.dtype), spans):
            raise InputError("A span does not start and end at line ends; prepare the data again with this tokenizer.")
        tokens.append(ids)
        records.append(record)
        counts[index] = len(spans)
    return {
        "position": order.astype("<u4"),
        "length": (table["end"] - table["start"])[order].astype("<u4"),
        "language": table["language"][order],
        "project": table["project"][order],
        "span_count": counts,
        "spans": np.concatenate(records),
        "tokens": np.concatenate(tokens),
    }


def _spans(record: NDArray[Any], bounds: NDArray[np.int64], span_type: np.dtype[Any]) -> NDArray[Any]:
    """The spans of one file. bounds: positions of its line ends and of its end."""
    first = np.cumsum(record["skip"], dtype=np.int64)
    spans = np.zeros(len(record), span_type)
    for name, line in (("start", first), ("end", first + record["lines"])):
        spans[name] = bounds[np.minimum(line, len(bounds) - 1)]
    spans["kind"] = record["kind"]
    return spans


def decode(
    columns: Columns, begins_line: NDArray[np.bool_], file_type: np.dtype[Any], span_type: np.dtype[Any]
) -> Split:
    """The inverse of `encode`."""
    at = np.concatenate([[0], np.cumsum(columns["length"], dtype=np.int64)])
    span_at = np.concatenate([[0], np.cumsum(columns["span_count"], dtype=np.int64)])
    stored = np.argsort(columns["position"])
    rows = []
    for index in stored:
        ids = columns["tokens"][at[index] : at[index + 1]]
        bounds = np.append(np.flatnonzero(begins_line[ids]), len(ids))
        rows.append((ids, _spans(columns["spans"][span_at[index] : span_at[index + 1]], bounds, span_type)))
    table = np.zeros(len(stored), file_type)
    for name in ("language", "project"):
        table[name] = columns[name][stored]
    return join(rows, table, span_type)


def choose(files: NDArray[Any], share: float) -> NDArray[np.int64]:
    """Row numbers of a random `share` of the files of each language, ascending.

    A larger share includes all files of a smaller one.
    """
    draws = np.random.default_rng(0).random(len(files))
    kept = np.zeros(len(files), bool)
    for language in np.unique(files["language"]):
        rows = np.flatnonzero(files["language"] == language)
        kept[rows[np.argsort(draws[rows])[: round(share * len(rows))]]] = True
    return np.flatnonzero(kept)


def compress(name: str, content: bytes, advance: Callable[[int], None]) -> bytes:
    """One xz stream, with the filter settings for a column of this name."""
    window = min(LARGEST_WINDOW, max(1 << 16, 1 << len(content).bit_length()))
    lc, lp, pb = LITERALS.get(name, (3, 0, 2))
    options = {"preset": 9 | lzma.PRESET_EXTREME, "dict_size": window, "lc": lc, "lp": lp, "pb": pb}
    packer = lzma.LZMACompressor(format=lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, **options}])
    parts = []
    for start in range(0, len(content), 1 << 20):
        parts.append(packer.compress(content[start : start + (1 << 20)]))
        advance(len(content[start : start + (1 << 20)]))
    return b"".join([*parts, packer.flush()])


def compress_all(parts: dict[str, bytes], title: str) -> dict[str, bytes]:
    with Progress(*Progress.get_default_columns(), DownloadColumn(), console=console) as progress:
        task = progress.add_task(title, total=sum(map(len, parts.values())))

        def advance(size: int) -> None:
            progress.advance(task, size)

        return {name: compress(name.split(".")[-1], content, advance) for name, content in parts.items()}


def serialise(splits: dict[str, Split], meta: dict[str, Any], tokenizer: bytes) -> dict[str, bytes]:
    """The parts of a pack in the order of the file: a header that lists the columns, then the columns."""
    begins_line = line_starts(Tokenizer.from_str(tokenizer.decode()))
    encoded = {name: encode(split, begins_line) for name, split in splits.items()}
    uses = sum(np.bincount(columns["tokens"], minlength=len(begins_line)) for columns in encoded.values())
    by_rank = np.argsort(-uses, kind="stable")
    rank = np.zeros(len(by_rank), ">u2")  # high byte first, since it is small for most tokens
    rank[by_rank] = np.arange(len(by_rank))
    columns: Columns = {"tokenizer": np.frombuffer(tokenizer, "u1"), "by_rank": by_rank.astype("<u2")}
    for split, found in encoded.items():
        for column, values in found.items():
            if column != "tokens":
                columns[f"{split}.{column}"] = values
    columns["tokens"] = rank[np.concatenate([found["tokens"] for found in encoded.values()])]
    header = {
        "meta": meta,
        "types": {"files": splits["train"].files.dtype.descr, "spans": splits["train"].spans.dtype.descr},
        "columns": [(name, values.dtype.descr, len(values)) for name, values in columns.items()],
    }
    return {"header": json.dumps(header).encode() + b"\n"} | {name: v.tobytes() for name, v in columns.items()}


def pack(data: Path, tokenizer: Path, out: Path, limit: int) -> dict[str, Any]:
    """Writes pack-00.xz, … of at most PIECE bytes each and `limit` bytes in total to `out`.

    If the data does not fit, training files are left out, the same share of each language; validation files stay.
    Returns sizes and counts. Raises InputError if input is missing or the limit is too small.
    """
    for path in (tokenizer, data / "meta.json"):
        if not path.is_file():
            raise InputError(f"There is no {path}; make it with `python -m train.tokenizer` and `train.prepare`.")
    whole = {split: Split.read(data, split) for split in SPLITS}
    meta = json.loads((data / "meta.json").read_text())
    share = 1.0
    while True:
        kept = choose(whole["train"].files, share)
        splits = {"train": whole["train"].only(kept), "valid": whole["valid"]}
        for name, split in splits.items():
            for language, counts in meta["splits"][name].items():
                counts |= split.counts(LANGUAGE_IDS[language])
        parts = serialise(splits, meta, tokenizer.read_bytes())
        streams = compress_all(parts, f"packing {share:.0%}")
        packed = b"".join(streams.values())
        if len(packed) <= limit:
            break
        training = sum(len(stream) for name, stream in streams.items() if name.startswith("train."))
        tokens = sum(len(one.tokens) for one in splits.values())
        training += len(streams["tokens"]) * len(splits["train"].tokens) // tokens
        share *= 0.98 * (limit - len(packed) + training) / training  # the rest keeps its size
        if share * len(whole["train"].files) < 1:
            raise InputError(f"The validation files need more than {limit / 2**20:.2f} MiB; raise --limit-mib.")
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("pack-*.xz"):
        old.unlink()
    for number, start in enumerate(range(0, len(packed), PIECE)):
        (out / f"pack-{number:02d}.xz").write_bytes(packed[start : start + PIECE])
    sizes = {name: len(stream) for name, stream in streams.items()}
    return {"sizes": sizes, "kept": len(kept), "files": len(whole["train"].files), "splits": splits}


def unpack(folder: Path, out: Path) -> dict[str, Split]:
    """Writes the packed files to `out` in the layout of train.prepare, and tokenizer.json.

    Raises InputError if the pack is missing, damaged or incomplete.
    """
    pieces = sorted(folder.glob("pack-*.xz"))
    if not pieces:
        raise InputError(f"{folder} has no pack-*.xz; make them with `python -m train.remote.pack`.")
    try:
        with lzma.open(io.BytesIO(b"".join(piece.read_bytes() for piece in pieces))) as source:
            header = json.loads(source.readline())
            columns: Columns = {}
            with Progress(*Progress.get_default_columns(), console=console) as progress:
                for name, described, count in progress.track(header["columns"], description="unpacking"):
                    kind = _type(described)
                    columns[name] = np.frombuffer(source.read(count * kind.itemsize), kind, count)
    except (lzma.LZMAError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{folder} is damaged or incomplete; copy all of its pack-*.xz again.") from error
    tokens = columns["by_rank"][columns["tokens"]]
    tokenizer = columns["tokenizer"].tobytes()
    begins_line = line_starts(Tokenizer.from_str(tokenizer.decode()))
    out.mkdir(parents=True, exist_ok=True)
    splits: dict[str, Split] = {}
    start = 0
    for name in SPLITS:
        found = {column: columns[f"{name}.{column}"] for column in ("position", "length", "language", "project")}
        found |= {column: columns[f"{name}.{column}"] for column in ("span_count", "spans")}
        found["tokens"] = tokens[start : start + int(found["length"].sum(dtype=np.int64))]
        start += len(found["tokens"])
        splits[name] = decode(found, begins_line, _type(header["types"]["files"]), _type(header["types"]["spans"]))
        splits[name].write(out, name)
    (out / "tokenizer.json").write_bytes(tokenizer)
    (out / "meta.json").write_text(json.dumps(header["meta"], indent=1) + "\n")
    return splits


def _type(described: list[list[str]]) -> np.dtype[Any]:
    """A dtype from its `descr` in JSON."""
    return np.dtype(described[0][1]) if described[0][0] == "" else np.dtype([(name, kind) for name, kind in described])


def main(
    out: Annotated[Path, typer.Option(help="Folder for the pack; with --unpack for the data.")],
    data: Annotated[Path | None, typer.Option(help="Folder written by train.prepare.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="tokenizer.json used for --data.")] = None,
    unpacked: Annotated[Path | None, typer.Option("--unpack", help="Pack to unpack.")] = None,
    limit_mib: Annotated[float, typer.Option(help="Maximum total size of the pack.")] = 56.0,
) -> None:
    """Pack prepared data into a few small files, or unpack it."""
    if unpacked is not None:
        splits = unpack(unpacked, out)
    elif data is None or tokenizer is None:
        raise UsageError("Give --data and --tokenizer to pack, or --unpack to unpack.")
    else:
        packed = pack(data, tokenizer, out, int(limit_mib * 2**20))
        splits = packed["splits"]
        for name, size in sorted(packed["sizes"].items(), key=lambda item: -item[1])[:6]:
            console.print(f"{size / 2**20:8.2f} MiB  {name}")
        console.print(f"{sum(packed['sizes'].values()) / 2**20:8.2f} MiB  in total")
        console.print(f"{packed['kept']:,} of {packed['files']:,} training files were kept")
    for name, split in splits.items():
        count = f"{len(split.files):,} files, {len(split.tokens) / 1e6:.2f} M tokens, {len(split.spans):,} spans"
        console.print(f"{out}: {name} {count}")


if __name__ == "__main__":
    typer.run(reports_errors(main))

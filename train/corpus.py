"""Builds the training corpus from permissively licensed projects: fetched, filtered, split by project.

Writes shards and a manifest. Must not know a tokenizer or a model.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import multiprocessing
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from engine.errors import InputError
from train.filters import (
    LARGEST,
    PERMUTATIONS,
    Seen,
    language_of,
    reason_to_drop,
    scrub,
    signature,
)
from train.packages import (
    FETCHERS,
    Skipped,
    Source,
    allowed,
    fetch,
    license_of,
    open_archive,
)
from train.program import reports_errors

console = Console(stderr=True)

TEXT_CAP = 150_000
SHARD_BYTES = 32_000_000


def read_sources(path: Path) -> list[Source]:
    """The projects listed in a sources file, each once, in the order of the file. Raises InputError."""
    try:
        listing = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"There is no sources file {path}; name one with --sources.") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML ({error}); correct it.") from error
    valid, cap_mb, caps = set(listing.get("valid", ())), listing.get("cap_mb", 6.0), listing.get("caps", {})
    sources: dict[str, Source] = {}
    for group in listing.get("group", ()):
        if group.get("ecosystem") not in FETCHERS:
            raise InputError(f"{path}: ecosystem must be one of {', '.join(FETCHERS)}.")
        for entry in group.get("names", ()):
            name, _, version = entry.partition("==")
            held_out = name in valid or hashed_to_valid(name)
            cap = caps.get(name, group.get("cap_mb", cap_mb))
            if held_out:
                cap = min(cap, listing.get("valid_cap_mb", cap))
            source = Source(group["ecosystem"], name, version or None, held_out, int(1e6 * cap))
            sources.setdefault(source.slug, source)
    if not sources:
        raise InputError(f"{path} lists no project; add a [[group]] with an ecosystem and names.")
    return list(sources.values())


def hashed_to_valid(project: str) -> bool:
    """Selects 4 % of the projects, by a hash of the name, to be kept out of training."""
    return int.from_bytes(hashlib.sha256(project.lower().encode()).digest()[:8], "big") % 25 == 0


def read_package(source: Source, archive: Path) -> tuple[dict[str, Any], list[dict[str, Any]], np.ndarray]:
    """(manifest entry, kept files, their signatures [files, 64]) of one fetched package.

    A license that does not permit training is noted in the entry. Raises Skipped if the archive cannot be read.
    """
    try:
        members = dict(open_archive(archive))
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise Skipped("the archive cannot be read") from error
    version, license_name = license_of(source.ecosystem, archive, members)
    entry = {
        "ecosystem": source.ecosystem,
        "name": source.name,
        "version": version,
        "license": license_name,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    if not allowed(license_name):
        entry["skipped"] = f"license {license_name[:80] or 'not stated'}"
        return entry, [], np.zeros((0, PERMUTATIONS), np.uint32)
    files, sketches = [], []
    for path, content in members.items():
        language = language_of(path)
        if language is None or len(content) > LARGEST:
            continue
        try:
            text = scrub(content.decode("utf-8"))
        except UnicodeDecodeError:
            continue
        if "\0" in text or reason_to_drop(text):
            continue
        kept = {
            "project": source.name,
            "version": version,
            "license": license_name,
            "path": path,
            "language": language,
        }
        files.append(kept | {"text": text})
        sketches.append(signature(text))
    return entry, files, np.array(sketches, np.uint32).reshape(-1, PERMUTATIONS)


def _stage(source: Source, archive: Path, staged: Path) -> None:
    """Reads one package into `staged`, unless an earlier run did. Delete `staging` to filter again."""
    if staged.exists():
        return
    try:
        entry, files, sketches = read_package(source, archive)
    except Skipped as skipped:
        entry, files, sketches = _skipped(source, str(skipped)), [], np.zeros((0, PERMUTATIONS), np.uint32)
    partial = staged.with_suffix(".partial")
    buffer = io.BytesIO()
    np.save(buffer, sketches)
    with gzip.open(partial, "wb", compresslevel=1) as out:
        out.write(json.dumps({"entry": entry, "files": files, "sketches": buffer.getvalue().hex()}).encode())
    partial.replace(staged)


def _skipped(source: Source, reason: str) -> dict[str, Any]:
    return {
        "ecosystem": source.ecosystem,
        "name": source.name,
        "version": source.version or "?",
        "skipped": reason,
    }


def keep(files: list[dict[str, Any]], sketches: np.ndarray, seen: Seen, cap_bytes: int) -> list[dict[str, Any]]:
    """Files of one project that are new, in the order of the hashes of their paths, up to the cap."""
    order = sorted(range(len(files)), key=lambda i: hashlib.sha256(files[i]["path"].encode()).digest())
    kept, size, prose = [], 0, 0
    for index in order:
        file = files[index]
        length = len(file["text"].encode())
        is_text = file["language"] == "text"
        if size + length > cap_bytes or (is_text and prose + length > TEXT_CAP) or not seen.is_new(sketches[index]):
            continue
        size, prose = size + length, prose + length * is_text
        kept.append(file)
    return sorted(kept, key=lambda file: file["path"])


class _Shards:
    """Writes records to files-000.jsonl.gz, files-001.jsonl.gz, … of at most SHARD_BYTES each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.size = folder, 0, SHARD_BYTES
        self.out: gzip.GzipFile | None = None

    def write(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        if self.out is None or self.size + len(line) > SHARD_BYTES:
            self.close()
            self.out = gzip.GzipFile(self.folder / f"files-{self.count:03d}.jsonl.gz", "wb", compresslevel=3, mtime=0)
            self.count, self.size = self.count + 1, 0
        self.out.write(line)
        self.size += len(line)

    def close(self) -> None:
        if self.out is not None:
            self.out.close()


def read_corpus(folder: Path, split: str | None = None) -> Iterator[dict[str, Any]]:
    """The records of a corpus ({project, version, license, path, language, split, text}), shard by shard.

    folder: may also be one shard. Raises InputError without a corpus, and for a damaged shard.
    """
    shards = [folder] if folder.is_file() else sorted(folder.glob("files-*.jsonl.gz"))
    if not shards:
        raise InputError(f"There is no corpus in {folder}; make one with `python -m train.corpus --out {folder}`.")
    for shard in shards:
        try:
            with gzip.open(shard, "rt", encoding="utf-8") as lines:
                for record in map(json.loads, lines):
                    if split is None or record["split"] == split:
                        yield record
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{shard} is damaged ({error}); make the corpus again with `train.corpus`.") from error


def _processes() -> ProcessPoolExecutor:
    """Two spawned workers; forked ones would copy locks that the download threads hold."""
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def build(
    sources: list[Source], out: Path, limit_mb: float = 400.0, archives: Path | None = None
) -> list[dict[str, Any]]:
    """Fetches and reads every source, writes shards and manifest, and returns the manifest."""
    archives, staging = archives or out / "archives", out / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    reasons: dict[str, str] = {}
    with Progress(console=console) as progress, ThreadPoolExecutor(2) as downloads, _processes() as readers:
        fetching = progress.add_task("fetching", total=len(sources))
        pending = {source.slug: downloads.submit(fetch, source, archives) for source in sources}
        reading = []
        for source in sources:
            try:
                archive = pending[source.slug].result()
                reading.append(readers.submit(_stage, source, archive, staging / f"{source.slug}.json.gz"))
            except Skipped as skipped:
                reasons[source.slug] = str(skipped)
            progress.advance(fetching)
        task = progress.add_task("reading", total=len(reading))
        for job in reading:
            job.result()
            progress.advance(task)
    return _write(sources, reasons, staging, out, limit_mb)


def _write(
    sources: list[Source], reasons: dict[str, str], staging: Path, out: Path, limit_mb: float
) -> list[dict[str, Any]]:
    for stale in out.glob("files-*.jsonl.gz"):
        stale.unlink()
    seen, shards, manifest, total = Seen(), _Shards(out), [], 0
    # Valid projects come first: files that other projects share with them stay out of training.
    with Progress(console=console) as progress:
        for source in progress.track(sorted(sources, key=lambda s: not s.valid), description="writing"):
            if source.slug in reasons:
                manifest.append(_skipped(source, reasons[source.slug]))
                continue
            with gzip.open(staging / f"{source.slug}.json.gz", "rb") as packed:
                staged = json.loads(packed.read())
            entry, files, split = staged["entry"], [], "valid" if source.valid else "train"
            if "skipped" not in entry and total < limit_mb * 1e6:
                sketches = np.load(io.BytesIO(bytes.fromhex(staged["sketches"])))
                files = keep(staged["files"], sketches, seen, source.cap_bytes)
                size = sum(len(file["text"].encode()) for file in files)
                entry |= {"files": len(files), "bytes": size, "split": split}
                total += size
                if not files:
                    entry["skipped"] = "no file left after filtering"
            elif "skipped" not in entry:
                entry["skipped"] = "the corpus was full"
            for file in files:
                shards.write(file | {"split": split})
            manifest.append(entry)
    shards.close()
    manifest.sort(key=lambda entry: (entry["ecosystem"], entry["name"]))
    (out / "manifest.json").write_text(manifest_text(manifest))
    return manifest


def manifest_text(manifest: Iterable[dict[str, Any]]) -> str:
    """The manifest as JSON with one package per line."""
    return "[\n" + ",\n".join(json.dumps(entry, sort_keys=True) for entry in manifest) + "\n]\n"


def _report(out: Path, manifest: list[dict[str, Any]]) -> None:
    sizes: dict[tuple[str, str], list[int]] = {}
    for record in read_corpus(out):
        cell = sizes.setdefault((record["language"], record["split"]), [0, 0])
        cell[0] += 1
        cell[1] += len(record["text"].encode())
    table = Table("language", "split", "files", "MB", title=f"{sum('skipped' not in e for e in manifest)} projects")
    for (language, split), (count, size) in sorted(sizes.items(), key=lambda item: -item[1][1]):
        table.add_row(language, split, f"{count:,}", f"{size / 1e6:.1f}")
    console.print(table)


def main(
    sources: Annotated[Path, typer.Option(help="List of projects (TOML).")],
    out: Annotated[Path, typer.Option(help="Folder of the corpus; an interrupted run continues there.")],
    limit_mb: Annotated[float, typer.Option(help="Maximum size of the corpus.")] = 400.0,
    manifest: Annotated[Path | None, typer.Option(help="Another file for the manifest.")] = None,
) -> None:
    """Fetch permissively licensed projects and write the corpus."""
    entries = build(read_sources(sources), out, limit_mb)
    if manifest is not None:
        manifest.write_text(manifest_text(entries))
    _report(out, entries)


if __name__ == "__main__":
    typer.run(reports_errors(main))

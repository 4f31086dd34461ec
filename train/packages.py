"""Fetches packages with the registries' own clients, and reads their licenses.

Knows archives and package metadata. Must not know which files are used for training.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from train.filters import DROPPED_FOLDERS, LANGUAGES

ALLOWED = {
    "MIT", "APACHE-2.0", "PSF-2.0", "PYTHON-2.0", "ISC", "0BSD", "UNLICENSE", "ZLIB", "BSD", "BSD-2-CLAUSE",
    "BSD-3-CLAUSE", "BSD-3-CLAUSE-CLEAR", "BSD-4-CLAUSE",
}  # fmt: skip
_VERSION_2 = r",?[ -]*(v|version )?2(\.0)?"
LICENSE_NAMES = [  # spellings in free-text fields and classifiers
    (r"(the )?(mit|expat)( license)?( \(mit\))?", "MIT"),
    (rf"(the )?(apache|asl)([ -]software)?([ -]license)?({_VERSION_2})?( license)?( \(.*2\.0\))?",
     "Apache-2.0"),
    (r"((new|modified) bsd|3[ -]clause bsd|bsd[ -]?3([ -]clause)?|bsd \(3-clause\))( license)?",
     "BSD-3-Clause"),
    (r"(simplified bsd|freebsd|2[ -]clause bsd|bsd[ -]?2([ -]clause)?)( license)?", "BSD-2-Clause"),
    (r"(the )?bsd([ -]style)?( license)?", "BSD"),
    (r"isc( license)?( \(iscl\))?", "ISC"),
    (r"psfl?|psf license|python|python software foundation( license)?", "PSF-2.0"),
    (r"(the )?unlicense( \(unlicense\))?", "Unlicense"),
    (r"zlib(/libpng)?( license)?", "Zlib"),
]  # fmt: skip
LICENSE_TEXTS = [
    ("GENERAL PUBLIC LICENSE", "GPL"),
    ("Mozilla Public License", "MPL"),
    ("Permission is hereby granted, free of charge", "MIT"),
    ("Redistribution and use in source and binary forms", "BSD"),
    ("Apache License", "Apache-2.0"),
    ("Permission to use, copy, modify, and/or distribute", "ISC"),
]


@dataclass(frozen=True)
class Source:
    """One project to fetch."""

    ecosystem: str
    name: str
    version: str | None
    valid: bool
    cap_bytes: int

    @property
    def slug(self) -> str:
        return f"{self.ecosystem}--{self.name.replace('/', '__')}"


class Skipped(Exception):
    """A package is left out. The message is the reason and goes into the manifest."""


def _client(command: list[str], cwd: Path, timeout: float = 180, **environment: str) -> str:
    """The output of a registry's client. A failure raises Skipped."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **environment},
        )
    except FileNotFoundError as error:
        raise Skipped(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Skipped("download took too long") from error
    if done.returncode < 0:
        raise KeyboardInterrupt  # killed by a signal, so the package is not at fault
    if done.returncode:
        raise Skipped("no such package, version or file for this platform")
    return done.stdout


def _newest(folder: Path, pattern: str = "*") -> Path:
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not files:
        raise Skipped("the client left no file")
    return files[-1]


# pip asks the build backend of a source distribution for its metadata, and a backend may build half the package to
# answer. These replacements read the metadata from PKG-INFO instead.
_BACKENDS = ("setuptools/build_meta", "maturin", "mesonpy", "scikit_build_core/build", "Cython/__init__")
_BACKEND = """
import pathlib, re, shutil
def prepare_metadata_for_build_wheel(folder, settings=None):
    text = pathlib.Path("PKG-INFO").read_text(encoding="utf-8")
    name, version = (re.search(rf"(?m)^{field}: *(\\S+)", text)[1] for field in ("Name", "Version"))
    made = pathlib.Path(folder, f"{name.replace('-', '_')}-{version}.dist-info")
    made.mkdir()
    shutil.copy("PKG-INFO", made / "METADATA")
    return made.name
def build_wheel(*arguments): raise NotImplementedError
__legacy__ = __import__("types").SimpleNamespace(**globals())
"""


def _fetch_pypi(source: Source, folder: Path) -> Path:
    requirement = source.name + (f"=={source.version}" if source.version else "")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "-d", "."]
    if source.ecosystem == "pypi":
        try:
            _client([*pip, "--only-binary", ":all:", requirement], folder, timeout=90)
            return _newest(folder)
        except Skipped:
            pass  # try the source distribution
    with tempfile.TemporaryDirectory() as backends:
        for name in _BACKENDS:
            module = Path(backends, f"{name}.py")
            module.parent.mkdir(exist_ok=True)
            module.write_text(_BACKEND)
        Path(backends, "setuptools/__init__.py").touch()
        source_only = ["--no-binary", ":all:", "--use-pep517", "--no-build-isolation", requirement]
        _client([*pip, *source_only], folder, timeout=90, PYTHONPATH=backends)
    return _newest(folder)


def _fetch_npm(source: Source, folder: Path) -> Path:
    requirement = source.name + (f"@{source.version}" if source.version else "")
    _client(["npm", "pack", "--silent", "--ignore-scripts", requirement], folder)
    return _newest(folder, "*.tgz")


def _fetch_debian(source: Source, folder: Path) -> Path:
    _client(
        ["apt-get", "download", "--quiet", source.name + (f"={source.version}" if source.version else "")],
        folder,
    )
    return _newest(folder, "*.deb")


def _fetch_stdlib(source: Source, folder: Path) -> Path:
    """The standard library of the running Python as an archive."""
    archive = folder / f"cpython-{sys.version.split()[0]}.tar.gz"
    root = Path(sysconfig.get_path("stdlib"))
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(root.rglob("*.py")):
            if not {"site-packages", "dist-packages", "lib2to3"} & set(path.parts):
                tar.add(path, arcname=f"cpython/{path.relative_to(root)}")
    return archive


FETCHERS = {
    "pypi": _fetch_pypi,
    "pypi-source": _fetch_pypi,
    "npm": _fetch_npm,
    "debian": _fetch_debian,
    "stdlib": _fetch_stdlib,
}


def fetch(source: Source, archives: Path) -> Path:
    """The archive of a project, downloaded unless an earlier run did.

    Raises Skipped if the registry does not have it. Later runs remember this and do not ask again.
    """
    folder = archives / source.slug
    record = folder / "fetched.json"
    if record.exists():
        fetched = json.loads(record.read_text())
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            fetched = {"file": FETCHERS[source.ecosystem](source, folder).name}
        except Skipped as skipped:
            fetched = {"skipped": str(skipped)}
        record.write_text(json.dumps(fetched))
    if "skipped" in fetched:
        raise Skipped(fetched["skipped"])
    return folder / fetched["file"]


def allowed(license_name: str) -> bool:
    """Whether an SPDX expression permits training: every part of an AND and one part of an OR is in ALLOWED."""
    text = license_name.replace("(", " ").replace(")", " ").strip()
    if not text:
        return False
    parts = re.split(r"\s+AND\s+|\s*&\s*|\s*;\s*", text, flags=re.I)
    return all(
        any(option.strip().upper() in ALLOWED for option in re.split(r"\s+OR\s+|\s*/\s*", part, flags=re.I))
        for part in parts
    )


def spdx(words: str) -> str:
    """The SPDX name of a license in free text; the text itself if it is unknown."""
    tidy = " ".join(words.strip().split())
    for pattern, name in LICENSE_NAMES:
        if re.fullmatch(pattern, tidy, re.I):
            return name
    return tidy


def license_from_metadata(metadata: str) -> tuple[str, str]:
    """(version, license) of a Python package, from its METADATA or PKG-INFO.

    Takes the first of: License-Expression, classifiers (all of them), a short License field, a phrase of a long one.
    """
    head = HeaderParser().parsestr(metadata)
    version = head.get("Version", "?")
    if expression := head.get("License-Expression"):
        return version, expression.strip()
    classifiers = [c.split(" :: ")[-1] for c in head.get_all("Classifier", []) if c.startswith("License :: ")]
    named = sorted({spdx(c) for c in classifiers if c not in ("OSI Approved", "DFSG approved")})
    if named:
        return version, " AND ".join(named)
    words = head.get("License", "") or ""
    if len(words) <= 80:
        return version, spdx(words)
    return version, next((name for phrase, name in LICENSE_TEXTS if phrase in words), "unclear")


def license_from_package_json(text: str) -> tuple[str, str]:
    """(version, license) of an npm package."""
    package = json.loads(text)
    found = package.get("license", package.get("licenses", ""))
    if isinstance(found, list):
        found = " OR ".join(str(one.get("type", one) if isinstance(one, dict) else one) for one in found)
    if isinstance(found, dict):
        found = str(found.get("type", ""))
    return str(package.get("version", "?")), spdx(found)


def _may_match_kept(pattern: str) -> bool:
    """Whether a file pattern of a copyright file can match files that are kept."""
    pure = PurePosixPath(pattern)
    if pattern.startswith("debian/") or DROPPED_FOLDERS & set(pure.parts[:-1]):
        return False
    return not pure.suffix or "*" in pure.suffix or pure.suffix.lower() in LANGUAGES


def license_from_copyright(text: str) -> str:
    """The licenses of a Debian package, from its copyright file, for files that may be kept."""
    names = set()
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields = HeaderParser().parsestr(paragraph)
        files, words = fields.get("Files"), fields.get("License")
        if files and words and any(map(_may_match_kept, files.split())):
            names.add(" OR ".join(spdx(word) for word in re.split(r"\s+or\s+", words.split("\n")[0], flags=re.I)))
    return " AND ".join(f"({name})" if " OR " in name else name for name in sorted(names))


def license_of(ecosystem: str, archive: Path, members: dict[str, bytes]) -> tuple[str, str]:
    """(version, license) as stated by the package. members: contents by path in the archive."""
    if ecosystem == "stdlib":
        return archive.name.removeprefix("cpython-").removesuffix(".tar.gz"), "PSF-2.0"
    if ecosystem == "debian":
        copyrights = [path for path in members if path.endswith("/copyright") and "/share/doc/" in path]
        if not copyrights:
            raise Skipped("no copyright file to read the license from")
        return unquote(archive.name.split("_")[1]), license_from_copyright(
            members[copyrights[0]].decode("utf-8", "replace")
        )
    names = ("package.json",) if ecosystem == "npm" else ("METADATA", "PKG-INFO")
    found = [path for path in members if path.count("/") == 1 and PurePosixPath(path).name in names]
    if not found:
        raise Skipped("no metadata to read the license from")
    text = members[min(found)].decode("utf-8", "replace")
    return license_from_package_json(text) if ecosystem == "npm" else license_from_metadata(text)


def _debian_data(package: bytes) -> bytes:
    """The data archive inside a .deb, an ar archive: 60-byte headers, members at even offsets."""
    at = 8
    while at + 60 <= len(package):
        name, size = package[at : at + 16].decode().strip(), int(package[at + 48 : at + 58])
        if name.startswith("data.tar"):
            return package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise tarfile.TarError("no data in the package")


def open_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    """(path, contents) of every regular file of at most 2 MB in a wheel, zip, tar or deb."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as bundle:
            for info in bundle.infolist():
                if not info.is_dir() and info.file_size < 2_000_000:
                    yield info.filename, bundle.read(info)
    else:
        with archive.open("rb") as file:
            content = _debian_data(file.read()) if archive.suffix == ".deb" else None
        with tarfile.open(archive, fileobj=None if content is None else io.BytesIO(content)) as tar:
            for member in tar:
                if member.isfile() and member.size < 2_000_000 and (inner := tar.extractfile(member)):
                    yield member.name.removeprefix("./"), inner.read()

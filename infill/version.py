"""The version of an installed package, from its metadata: the package is not imported."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def installed_version(package: str = "gesso") -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"

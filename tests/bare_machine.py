"""`python -m tests.bare_machine MODULE ARGUMENTS…` runs a module as on a rented GPU machine, which has only PyTorch,
Triton, transformers, NumPy, pytest and what these need.

Every other installed package, Gesso's own metadata included, cannot be imported. Must not import one of them itself.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator, Sequence, Set
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

PRESENT = ("torch", "triton", "transformers", "numpy", "pytest")
OURS = {"bench", "engine", "infill", "lsp", "tests", "train"}


class Bare:
    """An import finder that does not find what `finder` finds of other packages. present: names of distributions;
    absent: top-level modules of the others."""

    def __init__(self, finder: Any, present: Set[str], absent: Set[str]) -> None:
        self.finder, self.present, self.absent = finder, present, absent

    def find_spec(self, name: str, *rest: Any) -> Any:
        return None if name.partition(".")[0] in self.absent else self.finder.find_spec(name, *rest)

    def find_distributions(self, *arguments: Any) -> Iterator[metadata.Distribution]:
        find = getattr(self.finder, "find_distributions", lambda *_: ())
        return (found for found in find(*arguments) if _normal(found.metadata["Name"]) in self.present)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def install() -> None:
    """From now on only the packages in PRESENT and what they need can be imported."""
    present = set(_with_requirements(PRESENT))
    owners = metadata.packages_distributions()
    absent = {name for name, found in owners.items() if not present & {_normal(one) for one in found}} - OURS
    sys.meta_path[:] = [Bare(finder, present, absent) for finder in sys.meta_path]  # type: ignore[misc]
    for name in [name for name in sys.modules if name.partition(".")[0] in absent]:
        del sys.modules[name]


def _with_requirements(names: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    waiting = [*names]
    while waiting:
        name = _normal(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            requirements = metadata.requires(name) or ()
        except metadata.PackageNotFoundError:
            continue
        yield name
        found = map(Requirement, requirements)
        waiting += [one.name for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    install()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

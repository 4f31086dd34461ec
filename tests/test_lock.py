"""requirements-dev.txt holds what pyproject.toml asks for, with hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = [
    {"python_version": version, "python_full_version": f"{version}.0", "sys_platform": platform}
    for version in ("3.11", "3.12", "3.13", "3.14")
    for platform in ("linux", "darwin")
]


def locked() -> list[tuple[Requirement, str]]:
    """The requirements of the lock file, each with the lines below it."""
    text = (ROOT / "requirements-dev.txt").read_text()
    parts = re.split(r"^(?=[A-Za-z])", text, flags=re.MULTILINE)[1:]
    return [(Requirement(head.removesuffix(" \\")), rest) for head, _, rest in (part.partition("\n") for part in parts)]


def test_every_package_has_one_version_and_hashes() -> None:
    for requirement, rest in locked():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", rest) and requirement.url is None, requirement


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda one: "-".join(one.values()))
def test_the_lock_satisfies_the_project(environment: dict[str, str]) -> None:
    """Fails after a change of pyproject.toml until `scripts/lock` is run."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(one) for one in (*project["dependencies"], *project["optional-dependencies"]["dev"])]
    versions = {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one, _ in locked()
        if one.marker is None or one.marker.evaluate(environment)
    }
    shell = (ROOT / "scripts" / "environment.sh").read_text()
    assert "torch" not in versions, "its build depends on the machine"
    versions["torch"] = re.search(r"^torch_version='(.+)'", shell, re.MULTILINE)[1]  # type: ignore[index]
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement

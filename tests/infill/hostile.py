"""Hostile values, and copies of a JSON value with one part replaced by them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Part = tuple[str | int, ...]
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    2**70,
    10**400,
    -(10**400),
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "x",
    "1e999",
    "\ud800",
    "\x1b[2J::error",
    [],
    [[]],
    [None],
    {},
    {"a": 1},
)
MISSING = object()


def parts(value: Any, at: Part = ()) -> Iterator[Part]:
    """The paths of all values within a JSON value, and of itself."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from parts(item, (*at, key))


def changed(value: Any, part: Part, hostile: Any) -> Any:
    """A copy with another value at `part`."""
    if not part:
        return None if hostile is MISSING else hostile
    value = at = copy.deepcopy(value)
    for key in part[:-1]:
        at = at[key]
    if hostile is MISSING:
        del at[part[-1]]
    else:
        at[part[-1]] = hostile
    return value

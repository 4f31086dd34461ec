"""Checks values from files, variables, editors and requests against annotated types, and describes the types.

A type is str, bool, int, float, a Literal of strings, a list as `tuple[X, ...]` or `tuple[X, X]`, `Mapping[str, X]`, a
dataclass, or one of these with None; `Annotated` adds `Limits`. Must not know any setting or API.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cattrs import BaseValidationError, Converter
from cattrs.cols import list_structure_factory
from cattrs.errors import AttributeValidationNote, IterableValidationNote

from engine.errors import InputError, UsageError

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]
LONGEST_VALUE = 60  # characters of a wrong value that an error shows


@dataclass(frozen=True)
class Limits:
    """least, most: of a number, or of the length of a string or a list; both are allowed values.

    single: a list of one item may be written as the item alone.
    """

    least: float | None = None
    most: float | None = None
    single: bool = False

    def allow(self, size: float) -> bool:
        return (self.least is None or size >= self.least) and (self.most is None or size <= self.most)


NonEmpty = Annotated[str, Limits(least=1)]


class _Unusable(ValueError):
    """Its message says what to do about the value, if the description of the type does not."""


def structure(
    kind: Any, value: Any, name: str, error: type[InputError] | type[UsageError] = InputError, none: str = "null"
) -> Any:
    """`value` as the type `kind`: numbers and lists converted, unknown keys of objects ignored.

    In an object, null means the field's default. Raises `error` with a sentence about the first wrong part; `name` is
    that of the value, and `none` is how users write None.
    """
    try:
        return _converter.structure(value, kind)
    except Exception as wrong:  # what cattrs raises depends on the type
        keys, kind, cause = _first_problem(wrong, kind)
        value, found = _part(value, keys)
        name += "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
        if isinstance(cause, _Unusable):
            message = f"{name} {cause}"
        elif found:
            message = f"{name} is {_shown(value)}; it must be {describe(kind, none)}."
        else:
            message = f"{name} is missing; it must be {describe(kind, none)}."
        raise error(message) from None


@cache
def field_types(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with their limits."""
    return get_type_hints(kind, include_extras=True)


def is_optional(kind: Any) -> bool:
    return NoneType in get_args(kind)


def base_type(kind: Any) -> Any:
    """`kind` without None and limits."""
    return _split(kind)[0]


def describe(kind: Any, none: str = "null") -> str:
    """What a value must be, as the end of a sentence."""
    base, limits = _split(kind)
    if is_optional(kind):
        return f"{describe(_without_none(kind))} or {none}"
    if get_origin(base) is Literal:
        return f"one of {', '.join(get_args(base))}"
    if base in (int, float):
        bounds = (("from", limits.least), ("to", limits.most))
        words = ["a whole number" if base is int else "a number"]
        return " ".join(words + [f"{word} {bound:g}" for word, bound in bounds if bound is not None])
    if base is str and limits.most is None:
        return "a non-empty string" if limits.least else "a string"
    if base is str:
        return f"a string of at most {limits.most:g} characters"
    if limits.single:
        return f"{describe(get_args(base)[0])}, or a list of these"
    if get_origin(base) is tuple:
        least, most = _lengths(base, limits)
        return "a list" if most is None else f"a list of {least or 0:g} to {most:g} items"
    return "true or false" if base is bool else "a JSON object"


def json_schema(kind: Any) -> dict[str, Any]:
    """The type as JSON Schema."""
    base, limits = _split(kind)
    if is_optional(kind):
        return _nullable(json_schema(_without_none(kind)))
    if is_dataclass(base):
        return _object_schema(base)
    if get_origin(base) is Literal:
        return {"type": "string", "enum": list(get_args(base))}
    if get_origin(base) is tuple:
        items, (least, most) = json_schema(get_args(base)[0]), _lengths(base, limits)
        array = {"type": "array", "items": items} | _bounds(minItems=least, maxItems=most)
        return {"oneOf": [items, array]} if limits.single else array
    if get_origin(base) is not None:
        return {"type": "object", "additionalProperties": json_schema(get_args(base)[1])}
    if base is str:
        return {"type": "string"} | _bounds(minLength=limits.least, maxLength=limits.most)
    types: dict[Any, str] = {bool: "boolean", int: "integer", float: "number"}
    return {"type": types[base]} | _bounds(minimum=limits.least, maximum=limits.most)


def _object_schema(kind: Any) -> dict[str, Any]:
    properties, defaulted = {}, _defaulted(kind)
    for name, field_type in field_types(kind).items():
        schema = json_schema(field_type)
        properties[name] = _nullable(schema) if name in defaulted and not is_optional(field_type) else schema
    required = [name for name in properties if name not in defaulted]
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    choices = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [schema["type"], "null"]} | choices


def _lengths(kind: Any, limits: Limits) -> tuple[float | None, float | None]:
    """The least and the greatest length of a list; `tuple[X, X]` is a pair."""
    return (limits.least, limits.most) if _is_list(kind) else (len(get_args(kind)),) * 2


def _bounds(**bounds: float | None) -> dict[str, float]:
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _split(kind: Any) -> tuple[Any, Limits]:
    """The type without None and limits, and the limits."""
    if is_optional(kind):
        return _split(_without_none(kind))
    if get_origin(kind) is not Annotated:
        return kind, Limits()
    base, *notes = get_args(kind)
    return base, next((note for note in notes if isinstance(note, Limits)), Limits())


def _without_none(kind: Any) -> Any:
    return Union[tuple(one for one in get_args(kind) if one is not NoneType)]  # noqa: UP007 - made at run time


@cache
def _defaulted(kind: Any) -> frozenset[str]:
    return frozenset(
        one.name for one in fields(kind) if one.default is not MISSING or one.default_factory is not MISSING
    )


def _first_problem(error: Exception, kind: Any) -> tuple[list[str | int], Any, Exception]:
    """The keys that lead to the first wrong value, its type, and the innermost exception."""
    keys: list[str | int] = []
    while True:
        for note in getattr(error, "__notes__", ()):
            if isinstance(note, AttributeValidationNote):
                keys.append(note.name)
                kind = note.type
            elif isinstance(note, IterableValidationNote):
                keys.append(note.index)
                kind = note.type
        if not isinstance(error, BaseValidationError):
            return keys, kind, error
        error = error.exceptions[0]


def _part(value: Any, keys: list[str | int]) -> tuple[Any, bool]:
    """The value behind `keys`, and whether it is there."""
    for key in keys:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None, False
    return value, True


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[...]" if value else "[]"
    if isinstance(value, Mapping):
        return "{...}" if value else "{}"
    written = json.dumps(value, default=str)
    return written if len(written) <= LONGEST_VALUE else written[: LONGEST_VALUE - 3] + "..."


def _string(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Unusable("contains half of a character (a lone surrogate); send whole characters.") from None
    return value


def _boolean(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _number(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _whole_number(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        raise TypeError
    return int(value)


def _choice_hook(kind: Any) -> Hook:
    def hook(value: Any, _: Any) -> str:
        if value not in get_args(kind):
            raise ValueError
        return value

    return hook


def _limited_hook(kind: Any) -> Hook:
    base, limits = _split(kind)
    base_hook = _converter.get_structure_hook(base)
    item_hook = _converter.get_structure_hook(get_args(base)[0]) if limits.single else None

    def hook(value: Any, _: Any) -> Any:
        if item_hook is not None and not isinstance(value, list):
            return (item_hook(value, get_args(base)[0]),)
        if isinstance(value, (str, list, tuple)) and not limits.allow(len(value)):
            raise ValueError  # before a look at the items
        value = base_hook(value, base)
        if isinstance(value, (int, float)) and not limits.allow(value):
            raise ValueError
        return value

    return hook


def _list_hook(kind: Any) -> Hook:
    items: Any = list[get_args(kind)[0]]  # type: ignore[misc]
    items_hook = list_structure_factory(items, _converter)

    def hook(value: Any, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise TypeError
        return tuple(items_hook(value, items))

    return hook


def _object_hook(kind: Any) -> Hook:
    for one in fields(kind):
        one.type = field_types(kind)[one.name]  # cattrs would resolve annotations without their limits
    fields_hook, defaulted = _converter.gen_structure_attrs_fromdict(kind), _defaulted(kind)

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError
        given = {name: one for name, one in value.items() if one is not None or name not in defaulted}
        return fields_hook(given, kind)

    return hook


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[1:] == (...,)


_converter = Converter()
for _type, _hook in ((str, _string), (bool, _boolean), (int, _whole_number), (float, _number)):
    _converter.register_structure_hook(_type, _hook)
_converter.register_structure_hook_factory(is_dataclass, _object_hook)
_converter.register_structure_hook_factory(_is_list, _list_hook)
_converter.register_structure_hook_factory(lambda kind: get_origin(kind) is Literal, _choice_hook)
_converter.register_structure_hook_factory(lambda kind: get_origin(kind) is Annotated, _limited_hook)

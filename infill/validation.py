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
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from engine.errors import InputError, UsageError

if TYPE_CHECKING:
    from cattrs import Converter

Hook = Callable[[Any, Any], Any]  # of cattrs: a value and its type to the checked value
MAX_SHOWN = 60  # characters of a wrong value


@dataclass(frozen=True)
class Limits:
    """least, most: of a number, or of the length of a string or a list, both inclusive.

    single: a list of one item may be written as the item alone.
    """

    least: float | None = None
    most: float | None = None
    single: bool = False

    def allow(self, size: float) -> bool:
        return (self.least is None or size >= self.least) and (self.most is None or size <= self.most)


NonEmpty = Annotated[str, Limits(least=1)]


class _Unusable(ValueError):
    """A value that `describe` does not exclude; the message completes a sentence that begins with its name."""


def structure(
    kind: Any, value: Any, name: str, error: type[InputError] | type[UsageError] = InputError, none: str = "null"
) -> Any:
    """`value` as the type `kind`. Ignores unknown keys of objects, and reads null as a field's default.

    Raises `error` with a sentence about the first wrong part. name: of the value; none: how users write None.
    """
    try:
        return _converter().structure(value, kind)
    except Exception as wrong:  # those of cattrs and of the hooks have no other class in common
        reason, value, kind, name = _innermost(wrong, value, kind, name)
    if isinstance(reason, _Unusable):
        raise error(f"{name} {reason}")
    problem = "is missing" if value is MISSING else f"is {_shown(value)}"
    raise error(f"{name} {problem}; it must be {describe(kind, none)}.")


@cache
def field_types(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with their limits."""
    return get_type_hints(kind, include_extras=True)


def unpack(kind: Any) -> tuple[Any, Limits, bool]:
    """The type without None and limits, its limits, and whether it may be None."""
    optional = NoneType in get_args(kind)
    if optional:
        kind = Union[tuple(one for one in get_args(kind) if one is not NoneType)]  # noqa: UP007 - made at run time
    if get_origin(kind) is not Annotated:
        return kind, Limits(), optional
    base, *notes = get_args(kind)
    return base, next((note for note in notes if isinstance(note, Limits)), Limits()), optional


def describe(kind: Any, none: str = "null") -> str:
    """What a value must be, as the end of a sentence."""
    base, limits, optional = unpack(kind)
    least, most = limits.least, limits.most
    if get_origin(base) is Literal:
        words = f"one of {', '.join(get_args(base))}"
    elif base in (int, float):
        bounds = [f" {word} {bound}" for word, bound in (("from", least), ("to", most)) if bound is not None]
        words = "".join(["a whole number" if base is int else "a number", *bounds])
    elif base is str:
        words = f"a string of at most {most} characters" if most else "a non-empty string" if least else "a string"
    elif limits.single:
        words = f"{describe(get_args(base)[0])}, or a list of these"
    elif _is_list(base):
        words = "a list" if most is None else f"a list of {least or 0} to {most} items"
    elif get_origin(base) is tuple:
        words = f"a list of {len(get_args(base))} items"
    else:
        words = "true or false" if base is bool else "a JSON object"
    return f"{words} or {none}" if optional else words


def json_schema(kind: Any) -> dict[str, Any]:
    """The type as JSON Schema."""
    base, limits, optional = unpack(kind)
    schema = _base_schema(base, limits)
    if limits.single:
        schema = {"oneOf": [schema["items"], schema]}
    return _nullable(schema) if optional else schema


def _base_schema(base: Any, limits: Limits) -> dict[str, Any]:
    least, most = limits.least, limits.most
    if is_dataclass(base):
        return _object_schema(base)
    if get_origin(base) is Literal:
        return {"type": "string", "enum": list(get_args(base))}
    if get_origin(base) is tuple:
        if not _is_list(base):
            least = most = len(get_args(base))
        return {"type": "array", "items": json_schema(get_args(base)[0])} | _bounds(minItems=least, maxItems=most)
    if get_origin(base) is not None:
        return {"type": "object", "additionalProperties": json_schema(get_args(base)[1])}
    if base is str:
        return {"type": "string"} | _bounds(minLength=least, maxLength=most)
    types: dict[Any, str] = {bool: "boolean", int: "integer", float: "number"}
    return {"type": types[base]} | _bounds(minimum=least, maximum=most)


def _object_schema(kind: Any) -> dict[str, Any]:
    schemas, defaulted = {name: json_schema(one) for name, one in field_types(kind).items()}, _defaulted(kind)
    properties = {name: _nullable(schema) if name in defaulted else schema for name, schema in schemas.items()}
    required = [name for name in properties if name not in defaulted]
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    if isinstance(schema["type"], list):
        return schema
    choices = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [schema["type"], "null"]} | choices


def _bounds(**bounds: float | None) -> dict[str, float]:
    return {name: bound for name, bound in bounds.items() if bound is not None}


@cache
def _defaulted(kind: Any) -> frozenset[str]:
    return frozenset(
        one.name for one in fields(kind) if one.default is not MISSING or one.default_factory is not MISSING
    )


def _innermost(error: Exception, value: Any, kind: Any, name: str) -> tuple[Exception, Any, Any, str]:
    """The first exception that caused `error`, and the value, type and name of the part that it is about."""
    from cattrs import BaseValidationError
    from cattrs.errors import AttributeValidationNote, IterableValidationNote

    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            value, kind, name = value.get(note.name, MISSING), note.type, f"{name}.{note.name}"
        elif isinstance(note, IterableValidationNote):
            key = f"[{note.index}]" if isinstance(note.index, int) else f".{note.index}"
            value, kind, name = value[note.index], note.type, name + key
    if isinstance(error, BaseValidationError):
        return _innermost(error.exceptions[0], value, kind, name)
    return error, value, kind, name


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[...]" if value else "[]"
    if isinstance(value, Mapping):
        return "{...}" if value else "{}"
    written = json.dumps(value, default=str)
    return written if len(written) <= MAX_SHOWN else written[: MAX_SHOWN - 3] + "..."


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def _string(value: Any, _: Any) -> str:
    _require(isinstance(value, str))
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Unusable("contains half of a character (a lone surrogate); send whole characters.") from None
    return value


def _boolean(value: Any, _: Any) -> bool:
    _require(isinstance(value, bool))
    return value


def _number(value: Any, _: Any) -> float:
    _require(isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value))
    return float(value)


def _whole_number(value: Any, _: Any) -> int:
    """Of at most 64 bits, since it may become JSON again, which many clients read with such numbers."""
    _require(isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    _require(not isinstance(value, bool) and -(2**63) <= value < 2**63)
    return int(value)


def _choice(value: Any, kind: Any) -> str:
    _require(value in get_args(kind))
    return value


def _object_hook(kind: Any) -> Hook:
    for one in fields(kind):
        one.type = field_types(kind)[one.name]  # cattrs would resolve annotations without their limits
    fields_hook, defaulted = _converter().gen_structure_attrs_fromdict(kind), _defaulted(kind)

    def hook(value: Any, _: Any) -> Any:
        _require(isinstance(value, Mapping))
        return fields_hook({key: one for key, one in value.items() if one is not None or key not in defaulted}, kind)

    return hook


def _list_hook(kind: Any) -> Hook:
    from cattrs.cols import list_structure_factory

    items: Any = list[get_args(kind)[0]]  # type: ignore[misc]
    items_hook = list_structure_factory(items, _converter())

    def hook(value: Any, _: Any) -> tuple[Any, ...]:
        _require(isinstance(value, (list, tuple)))
        return tuple(items_hook(value, items))

    return hook


def _limited_hook(kind: Any) -> Hook:
    base, limits, _ = unpack(kind)
    base_hook = _converter().get_structure_hook(base)

    def hook(value: Any, _: Any) -> Any:
        if limits.single and not isinstance(value, list):
            return (_converter().structure(value, get_args(base)[0]),)
        if isinstance(value, (str, list, tuple)):
            _require(limits.allow(len(value)))  # before a look at the items
            return base_hook(value, base)
        value = base_hook(value, base)
        _require(limits.allow(value))
        return value

    return hook


def _tuple_hook(kind: Any) -> Hook:
    """Of a tuple of fixed length; cattrs also reads the keys of an object as its items."""
    kinds = get_args(kind)

    def hook(value: Any, _: Any) -> tuple[Any, ...]:
        _require(isinstance(value, (list, tuple)) and len(value) == len(kinds))
        return tuple(_converter().structure(one, item) for one, item in zip(value, kinds, strict=True))

    return hook


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[1:] == (...,)


@cache
def _converter() -> Converter:
    """Made on first use, so that settings can be made without cattrs on a machine that only measures."""
    from cattrs import Converter

    converter = Converter()
    for kind, hook in ((str, _string), (bool, _boolean), (int, _whole_number), (float, _number)):
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _choice)
    converter.register_structure_hook_factory(is_dataclass, _object_hook)
    converter.register_structure_hook_factory(lambda kind: get_origin(kind) is tuple, _tuple_hook)
    converter.register_structure_hook_factory(_is_list, _list_hook)
    converter.register_structure_hook_factory(lambda kind: get_origin(kind) is Annotated, _limited_hook)
    return converter

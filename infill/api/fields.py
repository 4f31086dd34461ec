"""What a JSON field must be: read and checked, and described for OpenAPI, from one declaration.

Must not know any API. Fields that are not declared are passed over: clients send what other servers understand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.errors import InputError

MANY_CHARACTERS = 2_000_000
WHOLE = 2**63 - 1


class Field(Protocol):
    """default: where the field is missing or null; `required` fields have none."""

    @property
    def required(self) -> bool: ...

    @property
    def default(self) -> Any: ...

    def read(self, value: Any, place: str) -> Any:
        """The value; raises InputError that names `place`."""
        ...

    def schema(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Text:
    """most: characters. Half characters (surrogates) are refused, as no file can have them."""

    default: str | None = ""
    most: int = MANY_CHARACTERS
    choices: tuple[str, ...] = ()
    required: bool = False

    def read(self, value: Any, place: str) -> str:
        if not isinstance(value, str) or len(value) > self.most:
            raise InputError(f"{place} must be a text of at most {self.most} characters.")
        if self.choices and value not in self.choices:
            raise InputError(f"{place} must be one of {', '.join(self.choices)}.")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise InputError(f"{place} has half a character in it (a lone surrogate); send whole ones.")
        return value

    def schema(self) -> dict[str, Any]:
        if self.choices:
            return {"type": "string", "enum": list(self.choices)}
        return {"type": "string", "maxLength": self.most}


@dataclass(frozen=True)
class Number:
    """least, most: both included. whole: no fraction."""

    default: float | None = None
    least: float = 0
    most: float = WHOLE
    whole: bool = False
    required: bool = False

    def read(self, value: Any, place: str) -> float:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not fits or not self.least <= value <= self.most or (self.whole and value != int(value)):
            kind = "a whole number" if self.whole else "a number"
            raise InputError(f"{place} must be {kind} from {self.least:g} to {self.most:g}.")
        return int(value) if self.whole else float(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer" if self.whole else "number", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Flag:
    default: bool | None = False
    required: bool = False

    def read(self, value: Any, place: str) -> bool:
        if not isinstance(value, bool):
            raise InputError(f"{place} must be true or false.")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class ListOf:
    """most: items. single: a lone item may stand for a list of one."""

    item: Field
    most: int
    least: int = 0
    single: bool = False
    default: Any = ()
    required: bool = False

    def read(self, value: Any, place: str) -> tuple[Any, ...]:
        if self.single and not isinstance(value, list):
            return (self.item.read(value, place),)
        if not isinstance(value, list) or not self.least <= len(value) <= self.most:
            raise InputError(f"{place} must be a list of {self.least} to {self.most} items.")
        return tuple(self.item.read(item, f"{place}[{index}]") for index, item in enumerate(value))

    def schema(self) -> dict[str, Any]:
        items = self.item.schema()
        array = {"type": "array", "items": items, "minItems": self.least, "maxItems": self.most}
        return {"oneOf": [items, array]} if self.single else array


@dataclass(frozen=True)
class Object:
    fields: Mapping[str, Field]
    default: Any = None
    required: bool = False

    def read(self, value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise InputError(f"{place} must be a JSON object.")
        found = {}
        for name, field in self.fields.items():
            where = f"{place}.{name}" if place != "The request" else name
            given = value.get(name)
            if given is None and field.required:
                raise InputError(f"{where} is missing; send it.")
            found[name] = field.default if given is None else field.read(given, where)
        return found

    def schema(self) -> dict[str, Any]:
        properties = {
            name: field.schema() if field.required else {"anyOf": [field.schema(), {"type": "null"}]}
            for name, field in self.fields.items()
        }
        required = [name for name, field in self.fields.items() if field.required]
        return {"type": "object", "properties": properties} | ({"required": required} if required else {})

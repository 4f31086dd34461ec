"""Values against annotated types: what is accepted, the sentence about what is not, and the JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from engine.errors import InputError, UsageError
from infill.validation import Limits, json_schema, structure


@dataclass(frozen=True)
class Item:
    size: Annotated[int, Limits(0, 10)]
    pair: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Order:
    title: Annotated[str, Limits(most=10)]
    items: Annotated[tuple[Item, ...], Limits(1, 3)]
    kind: Literal["small", "large"] = "small"
    price: float = 1.0
    limit: Annotated[int, Limits(1, 9)] | None = None
    notes: Annotated[tuple[Annotated[str, Limits(most=3)], ...], Limits(most=4, single=True)] = ()
    options: Mapping[str, bool] | None = None


VALID: dict[str, Any] = {"title": "a", "items": [{"size": 1}]}


def test_a_valid_value_becomes_the_dataclass() -> None:
    value = VALID | {"items": [{"size": 2.0, "pair": [3, 4]}], "price": 2, "notes": "abc", "options": {"x": True}}
    assert structure(Order, value, "order") == Order("a", (Item(2, (3, 4)),), "small", 2.0, None, ("abc",), {"x": True})


def test_null_is_the_default_and_unknown_keys_are_ignored() -> None:
    value = VALID | {"kind": None, "price": None, "limit": None, "unknown": 3}
    assert structure(Order, value, "order") == Order("a", (Item(1),))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"title": None}, "order.title is null; it must be a string of at most 10 characters."),
        ({"title": "x" * 99}, f'order.title is "{"x" * 56}...; it must be a string of at most 10 characters.'),
        ({"title": "\ud800"}, "order.title contains half of a character (a lone surrogate); send whole characters."),
        ({"items": []}, "order.items is []; it must be a list of 1 to 3 items."),
        ({"items": "ab"}, 'order.items is "ab"; it must be a list of 1 to 3 items.'),
        ({"items": [{}]}, "order.items[0].size is missing; it must be a whole number from 0 to 10."),
        ({"items": [3]}, "order.items[0] is 3; it must be a JSON object."),
        ({"items": [{"size": True}]}, "order.items[0].size is true; it must be a whole number from 0 to 10."),
        ({"items": [{"size": 1, "pair": [1]}]}, "order.items[0].pair is [...]; it must be a list of 2 items."),
        ({"kind": "huge"}, 'order.kind is "huge"; it must be one of small, large.'),
        ({"kind": ["small"]}, "order.kind is [...]; it must be one of small, large."),
        ({"price": float("nan")}, "order.price is NaN; it must be a number."),
        ({"price": 10**400}, f"order.price is 1{'0' * 56}...; it must be a number."),
        ({"limit": 10}, "order.limit is 10; it must be a whole number from 1 to 9 or null."),
        ({"limit": 1.5}, "order.limit is 1.5; it must be a whole number from 1 to 9 or null."),
        ({"notes": 3}, "order.notes is 3; it must be a string of at most 3 characters, or a list of these."),
        ({"notes": ["a", "abcd"]}, 'order.notes[1] is "abcd"; it must be a string of at most 3 characters.'),
        ({"options": {"x": 1}}, "order.options.x is 1; it must be true or false."),
        ({"options": ["x"]}, "order.options is [...]; it must be a JSON object or null."),
    ],
)
def test_an_error_names_the_first_wrong_part(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        structure(Order, VALID | change, "order")
    assert str(caught.value) == sentence


@pytest.mark.parametrize("value", [None, 3, [], "order"])
def test_the_whole_value_may_be_wrong(value: Any) -> None:
    with pytest.raises(UsageError, match="^order is .*; it must be a JSON object.$"):
        structure(Order, value, "order", UsageError)


def test_the_user_reads_how_to_write_none() -> None:
    with pytest.raises(InputError, match="^steps is true; it must be a whole number or empty.$"):
        structure(int | None, True, "steps", none="empty")


def test_the_schema_says_the_same() -> None:
    schema = json_schema(Order)
    assert schema["required"] == ["title", "items"]
    properties = schema["properties"]
    assert properties["title"] == {"type": "string", "maxLength": 10}
    assert properties["items"]["minItems"] == 1 and properties["items"]["items"]["required"] == ["size"]
    assert properties["kind"] == {"type": ["string", "null"], "enum": ["small", "large", None]}
    assert properties["limit"] == {"type": ["integer", "null"], "minimum": 1, "maximum": 9}
    one, many = properties["notes"]["anyOf"][0]["oneOf"]
    assert one == {"type": "string", "maxLength": 3}
    assert many == {"type": "array", "items": one, "maxItems": 4}
    assert properties["options"] == {"type": ["object", "null"], "additionalProperties": {"type": "boolean"}}

"""Where the beginning of a line that the model is sure of ends."""

from __future__ import annotations

import math

import pytest

from infill.complete.beginning import likely_beginning


def found(pieces: list[str], probabilities: list[float], least: float = 0.6) -> tuple[str, float, int]:
    """The beginning of a line of these tokens."""

    def text_of(tokens: object) -> str:
        return "".join(pieces[: len(list(tokens))])  # type: ignore[call-overload]

    return likely_beginning([*range(len(pieces))], [math.log(one) for one in probabilities], text_of, least)


def test_it_ends_where_the_product_of_the_probabilities_falls_below_the_least() -> None:
    text, probability, count = found(["self", ".open", " +", " other"], [0.9, 0.8, 0.8, 0.9])
    assert (text, count) == ("self.open", 2) and probability == pytest.approx(0.72)


def test_it_does_not_end_within_a_word() -> None:
    assert found(["result", " =", " compu", "te"], [0.9, 0.9, 0.9, 0.1])[0] == "result"
    assert found(["result", "_of", "_it"], [0.9, 0.9, 0.1])[0] == ""
    assert found(["result", "s", "(value)"], [0.9, 0.9, 0.1])[0] == "results"


@pytest.mark.parametrize("sign", [" +", "(", ",", " =", ".", " \ufffd"])
def test_it_does_not_end_with_a_sign_that_something_must_follow(sign: str) -> None:
    assert found(["value", sign, "other"], [0.9, 0.9, 0.1])[0] == "value"


@pytest.mark.parametrize("closer", [")", "]", "}", '"', "'"])
def test_it_may_end_with_a_closer(closer: str) -> None:
    assert found(["value", closer, " +"], [0.9, 0.9, 0.1])[0] == "value" + closer


def test_a_short_one_is_none() -> None:
    assert found(["  abc", " +", "x"], [0.9, 0.9, 0.1]) == ("", 0.0, 0)
    assert found(["  abcd", " +", "x"], [0.9, 0.9, 0.1])[0] == "  abcd"


def test_nothing_likely_is_none() -> None:
    assert found(["value"], [0.5]) == ("", 0.0, 0) and found([], []) == ("", 0.0, 0)

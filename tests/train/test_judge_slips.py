"""Judging slips: a model that knows the text finds all of them, a model that trusts the text finds none."""

from __future__ import annotations

import numpy as np
import pytest

from train.judge_slips import Judgement, Suspicion, _most_suspect, with_one_slip
from train.layout import Row


class Letters:
    """Names are the single tokens from 10 on."""

    role = np.array([0] * 10 + [3] * 20, dtype=np.int8)

    def names(self, tokens: np.ndarray) -> list[tuple[int, int]]:
        return [(at, at + 1) for at, token in enumerate(tokens.tolist()) if token >= 10]


class Files:
    slips = Letters()


CANVAS = np.array([10, 1, 11, 2, 10, 3, 12, 4, 11])


def row() -> Row:
    nothing = np.zeros(len(CANVAS))
    return Row(CANVAS, CANVAS, nothing > 0, nothing.astype(np.float32), CANVAS)


def sure_of(tokens: np.ndarray) -> np.ndarray:
    likely = np.full((len(tokens), 30), -10.0)
    likely[np.arange(len(tokens)), tokens] = -0.1
    return likely


def test_a_model_that_knows_the_text_finds_and_corrects_the_slip() -> None:
    for seed in range(20):
        changed = with_one_slip(row(), Files(), np.random.default_rng(seed))  # type: ignore[arg-type]
        assert changed is not None
        shown, span = changed[0].shown, changed[1]
        assert np.flatnonzero(shown != CANVAS).tolist() == [span[0]]
        found = _most_suspect(shown, sure_of(CANVAS), Files())  # type: ignore[arg-type]
        original = int(CANVAS[span[0]])
        if original in np.delete(shown, span[0]):
            assert found.span == span and found.name == (original,)
        assert _most_suspect(shown, sure_of(shown), Files()).gain == 0.0  # type: ignore[arg-type]


def test_a_canvas_with_a_single_name_gets_no_slip() -> None:
    alone = np.array([1, 10, 2, 10])
    nothing = np.zeros(4)
    only = Row(alone, alone, nothing > 0, nothing.astype(np.float32), alone)
    assert with_one_slip(only, Files(), np.random.default_rng(0)) is None  # type: ignore[arg-type]


def test_the_threshold_follows_from_the_rate_of_false_alarms() -> None:
    clean = [Suspicion(gain, (0, 1), (10,)) for gain in (5.0, 3.0, 1.0, 0.5)]
    slipped = [
        (Suspicion(6.0, (2, 3), (11,)), (2, 3), (11,)),  # found, corrected
        (Suspicion(4.0, (2, 3), (12,)), (2, 3), (11,)),  # found, corrected wrongly
        (Suspicion(4.0, (4, 5), (11,)), (2, 3), (11,)),  # suspects another name
        (Suspicion(2.0, (2, 3), (11,)), (2, 3), (11,)),  # found at a lower threshold
    ]
    judged = Judgement(1000, clean, slipped)
    assert judged.found(0) == (0.25, 0.25)
    assert judged.found(1) == (0.5, 0.25)
    assert judged.found(2) == (0.75, 0.5)
    assert judged.first == pytest.approx(0.5)

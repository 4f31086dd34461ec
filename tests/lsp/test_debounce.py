"""How long is waited: what it depends on, and in which direction."""

from __future__ import annotations

import pytest

from lsp.debounce import LONGEST_S, SOON_S, Pace


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(gap_s: float, answer_ms: float, keys: int = 20) -> Pace:
    """After `keys` keys and as many answers of the model."""
    clock = Clock()
    pace = Pace(clock)
    for _ in range(keys):
        clock.now += gap_s
        pace.typed()
        pace.answered(answer_ms)
    return pace


def delay(pace: Pace, eagerness: str = "balanced") -> float:
    return pace.delay_s(eagerness, None, False)  # type: ignore[arg-type]


def test_a_number_that_the_user_set_is_taken_as_it_is() -> None:
    pace = paced(0.15, 500)
    for _ in range(10):
        pace.rejected()
    for milliseconds in (0, 5, 9_000):
        for at_line_start in (True, False):
            assert pace.delay_s("calm", milliseconds, at_line_start) == milliseconds / 1000


def test_at_the_start_of_a_line_there_is_no_wait() -> None:
    assert paced(0.15, 500).delay_s("calm", None, True) == 0.0


def test_a_quick_model_is_asked_sooner() -> None:
    assert 0 < delay(paced(0.15, 20)) < delay(paced(0.15, 120)) < delay(paced(0.15, 280))


def test_with_a_slow_model_a_quick_typist_is_asked_about_sooner() -> None:
    assert delay(paced(0.08, 500)) < delay(paced(0.12, 500)) < delay(paced(0.16, 500))
    assert delay(paced(0.08, 500), "calm") < delay(paced(0.16, 500), "calm") < delay(paced(0.24, 500), "calm")


def test_never_longer_than_a_pause_nor_than_the_longest() -> None:
    assert delay(paced(0.1, 100_000), "calm") == pytest.approx(0.2)
    assert delay(paced(0.9, 100_000), "calm") == LONGEST_S
    slow = paced(0.9, 100_000)
    for _ in range(50):
        slow.rejected()
    assert delay(slow, "calm") == LONGEST_S


@pytest.mark.parametrize("answer_ms", [60, 120, 150])
def test_after_refusals_a_suggestion_still_comes_soon_unless_calm(answer_ms: float) -> None:
    pace = paced(0.3, answer_ms)
    for _ in range(50):
        pace.rejected()
    assert delay(pace) + answer_ms / 1000 <= SOON_S + 1e-9 < delay(pace, "calm") + answer_ms / 1000


def test_a_slow_model_is_never_asked_at_every_key() -> None:
    for answer_ms in (180, 200, 220, 800):
        assert delay(paced(0.3, answer_ms)) >= 0.25 * answer_ms / 1000


def test_the_eager_wait_less_than_the_calm() -> None:
    pace = paced(0.15, 100)
    assert delay(pace, "eager") < delay(pace, "balanced") < delay(pace, "calm")


def test_slower_after_refusals_quicker_after_acceptances_within_bounds() -> None:
    pace = paced(0.15, 100)
    plain = delay(pace)
    pace.rejected()
    once = delay(pace)
    pace.rejected()
    assert plain < once < delay(pace)
    for _ in range(100):
        pace.rejected()
    assert delay(pace) <= 3 * plain
    pace.accepted()
    pace.accepted()
    pace.accepted()
    assert delay(pace) < plain
    for _ in range(100):
        pace.accepted()
    assert delay(pace) >= plain / 3


def test_pauses_are_no_typing() -> None:
    clock = Clock()
    pace = Pace(clock)
    for gap in (0.1, 60, 60) * 10:
        clock.now += gap
        pace.typed()
        pace.answered(1_000)
    assert delay(pace, "calm") == pytest.approx(0.2)


def test_the_usual_gap_counts_and_not_the_hesitations() -> None:
    clock = Clock()
    pace = Pace(clock)
    for gap in (0.1, 0.1, 0.9) * 10:
        clock.now += gap
        pace.typed()
        pace.answered(1_000)
    assert delay(pace, "calm") == pytest.approx(0.2)


def test_one_slow_answer_changes_nothing() -> None:
    pace = paced(0.15, 50)
    before = delay(pace)
    pace.answered(90_000)
    assert delay(pace) == before


def test_the_newest_keys_count() -> None:
    clock = Clock()
    pace = Pace(clock)
    for gap in (0.3,) * 40 + (0.1,) * 20:
        clock.now += gap
        pace.typed()
        pace.answered(1_000)
    assert delay(pace, "calm") == pytest.approx(0.2)


def test_before_anything_was_measured_there_is_a_short_wait() -> None:
    assert 0 < delay(Pace(Clock())) < 0.1

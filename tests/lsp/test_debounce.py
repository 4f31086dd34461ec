"""What the wait after a key depends on, and in which direction."""

from __future__ import annotations

import pytest

from lsp.debounce import LONGEST_S, SOON_S, Debounce
from tests.lsp.clock import Clock


def after(gap_s: float, response_ms: float, keys: int = 20) -> Debounce:
    """A debounce after `keys` keys and as many responses of the model."""
    clock = Clock()
    debounce = Debounce(clock)
    for _ in range(keys):
        clock.now += gap_s
        debounce.typed()
        debounce.responded(response_ms)
    return debounce


def delay(debounce: Debounce, eagerness: str = "balanced") -> float:
    return debounce.delay_s(eagerness, None, False)  # type: ignore[arg-type]


def test_the_users_own_delay_is_used_unchanged() -> None:
    debounce = after(0.15, 500)
    for _ in range(10):
        debounce.rejected()
    for milliseconds in (0, 5, 9_000):
        for at_line_start in (True, False):
            assert debounce.delay_s("calm", milliseconds, at_line_start) == milliseconds / 1000


def test_at_the_start_of_a_line_there_is_no_wait() -> None:
    assert after(0.15, 500).delay_s("calm", None, True) == 0.0


def test_the_wait_grows_with_the_response_up_to_what_is_soon() -> None:
    assert 0 < delay(after(0.15, 20)) < delay(after(0.15, 60)) < delay(after(0.15, 120))


@pytest.mark.parametrize("gap_s", [0.08, 0.13, 0.2])
@pytest.mark.parametrize("response_ms", [200, 500, 2_000])
def test_a_slow_model_starts_before_the_next_key(gap_s: float, response_ms: float) -> None:
    """With a wait longer than the gap between keys no run would start while the user types."""
    for eagerness in ("balanced", "eager"):
        assert 0 < delay(after(gap_s, response_ms), eagerness) < 0.3 * gap_s
    assert delay(after(gap_s, response_ms), "calm") >= gap_s


def test_with_a_slow_model_fast_typing_shortens_the_wait() -> None:
    assert delay(after(0.08, 500)) < delay(after(0.12, 500)) < delay(after(0.16, 500))
    assert delay(after(0.08, 500), "calm") < delay(after(0.16, 500), "calm") < delay(after(0.24, 500), "calm")


def test_the_wait_is_limited_by_a_pause_and_by_the_maximum() -> None:
    assert delay(after(0.1, 100_000), "calm") == pytest.approx(0.2)
    assert delay(after(0.9, 100_000), "calm") == LONGEST_S
    slow = after(0.9, 100_000)
    for _ in range(50):
        slow.rejected()
    assert delay(slow, "calm") == LONGEST_S


@pytest.mark.parametrize("response_ms", [60, 120, 150])
def test_after_rejections_a_suggestion_still_comes_soon_unless_calm(response_ms: float) -> None:
    debounce = after(0.3, response_ms)
    for _ in range(50):
        debounce.rejected()
    assert delay(debounce) + response_ms / 1000 <= SOON_S + 1e-9 < delay(debounce, "calm") + response_ms / 1000


def test_eager_waits_less_than_calm() -> None:
    debounce = after(0.15, 100)
    assert delay(debounce, "eager") < delay(debounce, "balanced") < delay(debounce, "calm")


def test_rejections_lengthen_and_acceptances_shorten_the_wait_within_bounds() -> None:
    debounce = after(0.15, 100)
    plain = delay(debounce)
    debounce.rejected()
    once = delay(debounce)
    debounce.rejected()
    assert plain < once < delay(debounce)
    for _ in range(100):
        debounce.rejected()
    assert delay(debounce) <= 3 * plain
    debounce.accepted()
    debounce.accepted()
    debounce.accepted()
    assert delay(debounce) < plain
    for _ in range(100):
        debounce.accepted()
    assert delay(debounce) >= plain / 3


def test_pauses_do_not_count_as_typing() -> None:
    clock = Clock()
    debounce = Debounce(clock)
    for gap in (0.1, 60, 60) * 10:
        clock.now += gap
        debounce.typed()
        debounce.responded(1_000)
    assert delay(debounce, "calm") == pytest.approx(0.2)


def test_the_median_gap_counts_not_the_hesitations() -> None:
    clock = Clock()
    debounce = Debounce(clock)
    for gap in (0.1, 0.1, 0.9) * 10:
        clock.now += gap
        debounce.typed()
        debounce.responded(1_000)
    assert delay(debounce, "calm") == pytest.approx(0.2)


def test_one_slow_response_changes_nothing() -> None:
    debounce = after(0.15, 50)
    before = delay(debounce)
    debounce.responded(90_000)
    assert delay(debounce) == before


def test_the_newest_keys_count() -> None:
    clock = Clock()
    debounce = Debounce(clock)
    for gap in (0.3,) * 40 + (0.1,) * 20:
        clock.now += gap
        debounce.typed()
        debounce.responded(1_000)
    assert delay(debounce, "calm") == pytest.approx(0.2)


def test_the_wait_is_short_before_anything_was_measured() -> None:
    assert 0 < delay(Debounce(Clock())) < 0.1

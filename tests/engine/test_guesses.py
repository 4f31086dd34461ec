"""Guesses from a prompt and from drafts."""

from __future__ import annotations

from engine.guesses import CHOICES, LONGEST, Guesses

PROMPT = [1, 2, 3, 4, 5, 9, 2, 3, 6, 7, 9, 8]


def test_what_followed_the_longest_equal_context_comes_first() -> None:
    guesses = Guesses([*PROMPT, 1, 2, 3])
    assert guesses.after([], 20)[0] == [4, 5, 9, 2, 3, 6, 7, 9]
    assert [guess[0] for guess in guesses.after([], 20)] == [4, 6]
    assert Guesses([*PROMPT, 5]).after([9, 2, 3], 20)[0][0] == 6


def test_of_equal_contexts_the_last_one_comes_first() -> None:
    assert [guess[0] for guess in Guesses([1, 2, 5, 8, 1, 2, 6, 9, 1, 2]).after([], 20)] == [6, 5]


def test_the_same_next_token_is_guessed_once_and_only_a_few_are() -> None:
    prompt = [token for following in (5, 5, 6, 7, 8) for token in (1, 2, following)]
    found = Guesses([*prompt, 1, 2]).after([], 100)
    assert [guess[0] for guess in found] == [8, 7][:CHOICES]
    assert all(len(guess) <= LONGEST for guess in found)


def test_there_is_no_guess_without_a_repetition() -> None:
    assert Guesses(range(50)).after([], 20) == []
    assert Guesses(PROMPT).after([77], 20) == []
    assert Guesses().after([1, 2, 3], 20) == []


def test_drafts_that_begin_with_what_is_written_replace_the_prompt() -> None:
    guesses = Guesses(PROMPT, [[2, 3, 50, 51, 52], [60, 61]])
    assert guesses.after([2, 3], 20) == [[50, 51, 52]]
    assert guesses.after([], 4) == [[2, 3], [60, 61]]
    assert guesses.after([2, 3, 50, 51, 52], 20) == []


def test_guesses_keep_to_the_room() -> None:
    guesses = Guesses([*PROMPT, 1, 2, 3])
    for room in range(20):
        assert sum(map(len, guesses.after([], room))) <= room

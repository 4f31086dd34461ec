"""What the reuse ladder serves agrees with what was typed, and is there when it can be."""

from __future__ import annotations

import pytest

from lsp.suggestion_cache import (
    AFTER,
    CHARACTERS,
    FRESH_S,
    LINES,
    NOTHING_S,
    REACH,
    Ladder,
    Running,
    Served,
    Suggestion,
)

URI = "file:///a.py"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def suggest(text: str, identifier: str = "1", swallow: str = "") -> Suggestion:
    return Suggestion(identifier, text, swallow, 0.9, "model", 100.0)


def stored(before: str, after: str, *suggestions: Suggestion, lines: str = "auto", shown: bool = False) -> Ladder:
    ladder = Ladder(Clock())
    offered = ladder.store(URI, before, after, suggestions, lines)
    if shown:
        ladder.shown(URI, before, after, offered[0])
    return ladder


def served(ladder: Ladder, before: str, after: str) -> tuple[str, str, str] | None:
    """Rung, text and what is swallowed of the best."""
    found = ladder.look_up(URI, before, after)
    return found and (found.rung, found.suggestions[0].text, found.suggestions[0].swallow)


# -- typed as suggested


def test_typing_as_suggested_leaves_the_rest_with_the_same_id() -> None:
    ladder = stored("x = ", "\ny", suggest("foo(bar)"), shown=True)
    assert ladder.look_up(URI, "x = fo", "\ny") == Served("typed", (suggest("o(bar)"),))
    assert served(ladder, "x = ", "\ny") == ("typed", "foo(bar)", "")


@pytest.mark.parametrize("typed", ["g", "foo(bat", "foo(bar)", "foo(bar)\n", "foo(bar)\n "])
def test_something_else_or_all_of_it_typed_leaves_nothing(typed: str) -> None:
    assert stored("x = ", "\n", suggest("foo(bar)\n"), shown=True).look_up(URI, "x = " + typed, "\n") is None


def test_going_back_within_what_was_typed_and_undoing_bring_it_back() -> None:
    ladder = stored("x = ", "\n", suggest("foo(bar)"), shown=True)
    for typed, rest in [("foo(", "bar)"), ("f", "oo(bar)"), ("fx", None), ("f", "oo(bar)"), ("", "foo(bar)")]:
        found = ladder.look_up(URI, "x = " + typed, "\n")
        assert (found.suggestions[0].text if found else None) == rest
        if found:
            assert found.rung == "typed"
            ladder.shown(URI, "x = " + typed, "\n", found.suggestions[0])
    assert ladder.look_up(URI, "x =", "\n") is None


def test_what_is_on_the_screen_stays_though_a_newer_answer_is_nearer() -> None:
    ladder = stored("x = ", "\n", suggest("foo(bar)"), shown=True)
    ladder.store(URI, "x = f", "\n", [suggest("ull()", "2")], "auto")
    assert served(ladder, "x = f", "\n") == ("typed", "oo(bar)", "")
    assert served(ladder, "x = fu", "\n") == ("cache", "ll()", "")


def test_it_needs_no_answer_kept_for_it() -> None:
    ladder = Ladder(Clock(), capacity=0)
    ladder.shown(URI, "x = ", "\n", suggest("foo"))
    assert served(ladder, "x = f", "\n") == ("typed", "oo", "")
    assert ladder.look_up("file:///b.py", "x = f", "\n") is None
    ladder.forget(URI)
    assert ladder.look_up(URI, "x = f", "\n") is None


@pytest.mark.parametrize(
    ("typed", "after", "rest", "swallow"),
    [
        ("print(", ")\n", '"hi", [1])', ")"),
        ('print("', '")\n', 'hi", [1])', '")'),
        ('print("hi"', ")\n", ", [1])", ")"),
        ('print("hi", [', "])\n", "1])", "])"),
        ("print(", "\n", '"hi", [1])', ""),
    ],
)
@pytest.mark.parametrize("shown", [True, False])
def test_brackets_that_the_editor_closes_are_swallowed(
    typed: str, after: str, rest: str, swallow: str, shown: bool
) -> None:
    ladder = stored("", "\n", suggest('print("hi", [1])'), shown=shown)
    found = served(ladder, typed, after)
    assert found is not None and found[1:] == (rest, swallow)


@pytest.mark.parametrize(
    ("typed", "after"),
    [("print(", "))\n"), ("print(", "]\n"), ("print", ")\n"), ("print()", ")\n"), ("print(", ")x\n")],
)
def test_other_text_right_of_the_cursor_is_another_place(typed: str, after: str) -> None:
    assert stored("", "\n", suggest("print() + f()"), shown=True).look_up(URI, typed, after) is None
    assert stored("", "\n", suggest("'a' + 'b'"), shown=True).look_up(URI, "'a'", "'\n") is None


def test_closers_that_do_not_come_again_would_hide_it() -> None:
    ladder = stored("", "\n", suggest("if (\n    a"), shown=True)
    assert served(ladder, "if (", "\n") == ("typed", "\n    a", "")
    assert ladder.look_up(URI, "if (", ")\n") is None


def test_what_it_swallows_may_be_typed_over() -> None:
    ladder = stored("foo(", ")\n", suggest("a) + b", swallow=")"), shown=True)
    assert served(ladder, "foo(a", ")\n") == ("typed", ") + b", ")")
    assert served(ladder, "foo(a)", "\n") == ("typed", " + b", "")
    assert ladder.look_up(URI, "foo(a", ")x\n") is None


# -- the cache


def test_the_cache_looks_at_both_sides_and_survives_edits_elsewhere() -> None:
    before, after = "y = 1\n" * 500 + "x = ", "\nz\n" * 200
    ladder = stored(before, after, suggest("foo"))
    assert served(ladder, before, after) == ("cache", "foo", "")
    assert served(ladder, "new line\n" + before + "f", after + "more") == ("cache", "oo", "")
    assert ladder.look_up(URI, before, "\nother" + after) is None
    assert ladder.look_up(URI, before.replace("1\nx", "2\nx"), after) is None
    assert ladder.look_up("file:///b.py", before, after) is None


def test_an_end_of_the_text_is_no_beginning_of_more() -> None:
    assert stored("x = ", "\n", suggest("foo")).look_up(URI, "x = ", "\ny = 1") is None
    assert stored("x = ", "", suggest("foo")).look_up(URI, "x = ", "1") is None
    whole = "\n" * (AFTER + 50)
    assert stored("x = ", whole, suggest("foo")).look_up(URI, "x = ", whole + "more") is not None


def test_several_alternatives_are_narrowed_and_the_nearest_answer_comes_first() -> None:
    ladder = stored("x = ", "", suggest("foo", "1"), suggest("far", "2"), suggest("bar", "3"))
    found = ladder.look_up(URI, "x = f", "")
    assert found == Served("cache", (suggest("oo", "1"), suggest("ar", "2")))
    ladder.store(URI, "x = f", "", [suggest("ine", "4")], "auto")
    assert served(ladder, "x = f", "") == ("cache", "ine", "")
    assert served(ladder, "x = fa", "") == ("cache", "r", "")


def test_nothing_good_is_remembered_for_a_short_time_at_that_very_place() -> None:
    clock = Clock()
    ladder = Ladder(clock)
    ladder.store(URI, "a\nx = ", "\n", [], "auto")
    assert ladder.look_up(URI, "a\nx = ", "\n") == Served("cache", ())
    assert ladder.look_up(URI, "a\nx = 1", "\n") is None
    assert ladder.look_up(URI, "a\nx = ", ")\n") is None
    clock.now += NOTHING_S
    assert ladder.look_up(URI, "a\nx = ", "\n") is None


def test_answers_grow_old() -> None:
    clock = Clock()
    ladder = Ladder(clock)
    ladder.store(URI, "x = ", "", [suggest("foo")], "auto")
    clock.now += FRESH_S - 1
    assert ladder.look_up(URI, "x = ", "") is not None
    clock.now += 1
    assert ladder.look_up(URI, "x = ", "") is None
    assert len(ladder) == 0


def test_it_is_bounded_in_answers_and_characters_and_drops_what_was_not_used() -> None:
    ladder = Ladder(Clock(), capacity=3)
    for number in range(3):
        ladder.store(URI, f"{number}\nx = ", "", [suggest("foo")], "auto")
    assert ladder.look_up(URI, "0\nx = ", "")
    ladder.store(URI, "3\nx = ", "", [suggest("foo")], "auto")
    assert [bool(ladder.look_up(URI, f"{number}\nx = ", "")) for number in range(4)] == [True, False, True, True]
    ladder.store(URI, "0\nx = 1 + ", "", [], "auto")
    assert len(ladder) == 3
    assert ladder.look_up(URI, "0\nx = ", "") and not ladder.look_up(URI, "2\nx = ", "")
    ladder.store(URI, "4\nx = ", "", [suggest("a" * (CHARACTERS - 10))], "auto")
    assert len(ladder) == 1
    ladder.store(URI, "4\nx = ", "", [suggest("a" * (CHARACTERS + 10))], "auto")
    assert len(ladder) == 0


def test_a_newer_answer_for_a_place_replaces_the_older() -> None:
    ladder = stored("x = ", "", suggest("foo", "1"))
    ladder.store(URI, "x = ", "", [suggest("bar", "2")], "auto")
    assert ladder.look_up(URI, "x = ", "") == Served("cache", (suggest("bar", "2"),))
    assert len(ladder) == 1
    ladder.forget(URI)
    assert len(ladder) == 0 and ladder.look_up(URI, "x = ", "") is None


@pytest.mark.parametrize(
    ("left", "text", "typed", "rest"),
    [
        ("", "    return x", "  ", "  return x"),
        ("", "    return x", "\t", "return x"),
        ("", "    return x", "\tre", "turn x"),
        ("    ", "return x", "    ", "return x"),
        ("    ", "return x", "    b", None),
        ("", "    return x", "r", None),  # the user chose to indent less
        ("x =", "y", "  ", None),  # this is no indentation
        ("", "    if x:\n        y", "\t", None),  # the lines below would stand wrong
    ],
)
def test_indentation_that_is_being_typed_may_differ(left: str, text: str, typed: str, rest: str | None) -> None:
    for shown in (True, False):
        found = stored("a:\n" + left, "\nb", suggest(text), shown=shown).look_up(URI, "a:\n" + left + typed, "\nb")
        assert (found.suggestions[0].text if found else None) == rest


def test_kinds_of_line_ends_do_not_matter() -> None:
    ladder = stored("a\r\nif x:", "\r\nb", suggest("\n    y\n    z"))
    assert served(ladder, "a\r\nif x:\r\n  ", "\r\nb") == ("cache", "  y\n    z", "")
    ladder = stored("a\nif x:", "\nb", suggest("\r\n    y\r\n    z"))
    assert served(ladder, "a\nif x:\n    y", "\nb") == ("remainder", "\r\n    z", "")
    ladder = stored("a\rif x:", "\rb", suggest(" y"), shown=True)
    assert served(ladder, "a\rif x: ", "\rb") == ("typed", "y", "")


def test_emoji_are_characters_like_others() -> None:
    ladder = stored("👍 = '", "'\n", suggest("🇩🇪👩‍👩‍👧 ok"), shown=True)
    assert served(ladder, "👍 = '🇩🇪👩", "'\n") == ("typed", "\u200d👩‍👧 ok", "")


def test_a_line_longer_than_typing_is_followed() -> None:
    before = "word " * REACH
    ladder = stored(before, "", suggest("and more"))
    assert served(ladder, before, "") == ("cache", "and more", "")
    assert served(ladder, before + "and", "") == ("cache", " more", "")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_many_lines_typed_as_suggested(end: str) -> None:
    text = end.join(f"line {number}" for number in range(LINES - 5))
    ladder = stored("a" + end, end + "b", suggest(text))
    found = served(ladder, "a" + end + text[:-3], end + "b")
    assert found and found[1] == text[-3:]


# -- the remainder of a longer answer

ANSWER = "first(a)\n    second(b)\n\n    third"


@pytest.mark.parametrize("accepts", [True, False])
def test_of_a_longer_answer_one_line_is_served_at_a_time(accepts: bool) -> None:
    ladder = Ladder(Clock())
    before, after = "def f():\n    ", "\nx"
    offered = ladder.store(URI, before, after, [suggest(ANSWER)], "one")
    seen = []
    while offered:
        suggestion = offered[0]
        seen.append((suggestion.text, suggestion.id))
        ladder.shown(URI, before, after, suggestion)
        assert served(ladder, before + suggestion.text[:3], after) == ("typed", suggestion.text[3:], "")
        if accepts:
            ladder.accepted(suggestion.id)
            assert len(ladder) == 1
        before += suggestion.text
        found = ladder.look_up(URI, before, after)
        assert found is None or found.rung == "remainder"
        offered = found.suggestions if found else ()
    assert [text for text, _ in seen] == ["first(a)", "\n    second(b)", "\n\n    third"]
    assert seen[0][1] == "1" and len({identifier for _, identifier in seen}) == 3


def test_of_alternatives_that_look_the_same_the_first_is_served() -> None:
    alternatives = [suggest("a\nb", "1"), suggest("a\nc", "2"), suggest("d", "3")]
    ladder = stored("x\n", "\n", *alternatives, lines="one")
    assert ladder.look_up(URI, "x\n", "\n") == Served("cache", (suggest("a", "1"), suggest("d", "3")))
    assert ladder.look_up(URI, "x\na", "\n") == Served("remainder", (suggest("\nb", "1+1"), suggest("\nc", "2+1")))


def test_an_id_does_not_change_while_its_line_is_typed() -> None:
    ladder = stored("x\n", "\n", suggest(ANSWER), lines="one")
    identifiers = [ladder.look_up(URI, "x\n" + ANSWER[:end], "\n") for end in range(len(ANSWER))]
    by_line = [found.suggestions[0].id for found in identifiers if found]
    assert len(by_line) == len(ANSWER)
    assert by_line == sorted(by_line) and len(set(by_line)) == 3


def test_accepted_text_is_off_the_screen_and_comes_back_by_undo() -> None:
    ladder = stored("x = ", "\n", suggest("foo"), shown=True)
    ladder.accepted("1")
    assert ladder.look_up(URI, "x = foo", "\n") is None
    assert served(ladder, "x = ", "\n") == ("cache", "foo", "")


def test_of_what_was_accepted_in_part_the_rest_is_served_and_kept() -> None:
    ladder = Ladder(Clock(), capacity=2)
    ladder.store(URI, "a\nx = ", "\n", [suggest("foo bar")], "auto")
    ladder.shown(URI, "a\nx = ", "\n", suggest("foo bar"))
    ladder.store(URI, "b\nx = ", "\n", [suggest("foo", "2")], "auto")
    ladder.partly_accepted("1", 3)
    ladder.store(URI, "c\nx = ", "\n", [suggest("foo", "3")], "auto")
    assert served(ladder, "a\nx = foo", "\n") == ("typed", " bar", "")
    assert ladder.look_up(URI, "b\nx = ", "\n") is None
    ladder.partly_accepted("1", len("foo bar"))
    assert served(ladder, "a\nx = foo", "\n") == ("cache", " bar", "")


def test_what_is_swallowed_goes_with_the_line_that_brings_it_again() -> None:
    ladder = stored("foo(", ")\n", suggest("\n  a\n)", swallow=")"), lines="one")
    found = ladder.look_up(URI, "foo(", ")\n")
    assert found and found.suggestions == (suggest("\n  a"),)
    found = ladder.look_up(URI, "foo(\n  a", ")\n")
    assert found and found.suggestions == (suggest("\n)", "1+1", swallow=")"),)
    ladder = stored("foo(", ")\n", suggest("a)\nb", swallow=")"), lines="one")
    assert served(ladder, "foo(", ")\n") == ("cache", "a)", ")")
    assert served(ladder, "foo(a)", "\n") == ("remainder", "\nb", "")


# -- a run on its way


def test_a_run_agrees_while_the_user_only_types_on() -> None:
    running = Running(URI, "y = 1\nx = ", ")\n", 100.0)
    assert running.agrees("y = 1\nx = ", ")\n")
    assert running.agrees("y = 1\nx = f(", "))\n")
    assert running.agrees("y = 1\nx = f)", "\n")
    assert not running.agrees("y = 1\nx =", ")\n")
    assert not running.agrees("y = 2\nx = f", ")\n")
    assert not running.agrees("y = 1\nx = f", "]\n")
    assert not running.agrees("y = 1\nx = ", "\n")
    assert not running.agrees("y = 1\nx = " + "a" * (REACH + 1), ")\n")  # pasted


def test_of_a_runs_answer_those_stay_that_begin_as_was_typed() -> None:
    running = Running(URI, "x = ", "\n", 100.0)
    answer = (suggest("foo(1)", "1"), suggest("bar", "2"), suggest("fo", "3"), suggest("foo(2)", "4"))
    assert running.still_fits(answer, "x = ", "\n") == answer
    assert running.still_fits(answer, "x = fo", "\n") == (suggest("o(1)", "1"), suggest("o(2)", "4"))
    assert running.still_fits(answer, "x = foo(", ")\n") == (suggest("1)", "1", ")"), suggest("2)", "4", ")"))
    assert running.still_fits(answer, "x = fx", "\n") == ()
    assert running.still_fits(answer, "x = fo", "y\n") == ()
    assert running.still_fits(answer, "x", "\n") == ()

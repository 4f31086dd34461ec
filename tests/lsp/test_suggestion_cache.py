"""The suggestion cache serves what agrees with the typed text."""

from __future__ import annotations

import pytest

from lsp.suggestion_cache import AFTER, CHARACTERS, FRESH_S, LINES, NOTHING_S, REACH, Anchor, SuggestionCache
from lsp.suggestions import Suggestion, Suggestions
from tests.lsp.clock import Clock

URI = "file:///a.py"


def suggest(text: str, identifier: str = "1", swallow: str = "") -> Suggestion:
    return Suggestion(identifier, text, swallow, 0.9)


def stored(
    before: str, after: str, *suggestions: Suggestion, lines: str = "auto", shown: bool = False
) -> SuggestionCache:
    cache = SuggestionCache(Clock())
    offered = cache.store(URI, before, after, suggestions, lines)
    if shown:
        cache.shown(URI, before, after, offered[0])
    return cache


def best(cache: SuggestionCache, before: str, after: str) -> tuple[str, str, str] | None:
    """Origin, text and swallowed characters of the best suggestion."""
    found = cache.look_up(URI, before, after)
    return found and (found.origin, found.items[0].text, found.items[0].swallow)


# -- typed as suggested


def test_typing_as_suggested_leaves_the_rest_with_the_same_id() -> None:
    cache = stored("x = ", "\ny", suggest("foo(bar)"), shown=True)
    assert cache.look_up(URI, "x = fo", "\ny") == Suggestions((suggest("o(bar)"),), "typed")
    assert best(cache, "x = ", "\ny") == ("typed", "foo(bar)", "")


@pytest.mark.parametrize("typed", ["g", "foo(bat", "foo(bar)", "foo(bar)\n", "foo(bar)\n "])
def test_typing_something_else_or_all_of_it_leaves_nothing(typed: str) -> None:
    assert stored("x = ", "\n", suggest("foo(bar)\n"), shown=True).look_up(URI, "x = " + typed, "\n") is None


def test_deleting_and_undoing_bring_it_back() -> None:
    cache = stored("x = ", "\n", suggest("foo(bar)"), shown=True)
    for typed, rest in [("foo(", "bar)"), ("f", "oo(bar)"), ("fx", None), ("f", "oo(bar)"), ("", "foo(bar)")]:
        found = cache.look_up(URI, "x = " + typed, "\n")
        assert (found.items[0].text if found else None) == rest
        if found:
            assert found.origin == "typed"
            cache.shown(URI, "x = " + typed, "\n", found.items[0])
    assert cache.look_up(URI, "x =", "\n") is None


def test_the_suggestion_on_the_screen_beats_a_newer_nearer_one() -> None:
    cache = stored("x = ", "\n", suggest("foo(bar)"), shown=True)
    cache.store(URI, "x = f", "\n", [suggest("ull()", "2")], "auto")
    assert best(cache, "x = f", "\n") == ("typed", "oo(bar)", "")
    assert best(cache, "x = fu", "\n") == ("cache", "ll()", "")


def test_the_suggestion_on_the_screen_needs_no_entry() -> None:
    cache = SuggestionCache(Clock(), capacity=0)
    cache.shown(URI, "x = ", "\n", suggest("foo"))
    assert best(cache, "x = f", "\n") == ("typed", "oo", "")
    assert cache.look_up("file:///b.py", "x = f", "\n") is None
    cache.forget(URI)
    assert cache.look_up(URI, "x = f", "\n") is None


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
    cache = stored("", "\n", suggest('print("hi", [1])'), shown=shown)
    found = best(cache, typed, after)
    assert found is not None and found[1:] == (rest, swallow)


@pytest.mark.parametrize(
    ("typed", "after"),
    [("print(", "))\n"), ("print(", "]\n"), ("print", ")\n"), ("print()", ")\n"), ("print(", ")x\n")],
)
def test_other_text_right_of_the_cursor_is_another_position(typed: str, after: str) -> None:
    assert stored("", "\n", suggest("print() + f()"), shown=True).look_up(URI, typed, after) is None
    assert stored("", "\n", suggest("'a' + 'b'"), shown=True).look_up(URI, "'a'", "'\n") is None


def test_closers_that_the_suggestion_does_not_repeat_hide_it() -> None:
    cache = stored("", "\n", suggest("if (\n    a"), shown=True)
    assert best(cache, "if (", "\n") == ("typed", "\n    a", "")
    assert cache.look_up(URI, "if (", ")\n") is None


def test_swallowed_text_may_be_typed_over() -> None:
    cache = stored("foo(", ")\n", suggest("a) + b", swallow=")"), shown=True)
    assert best(cache, "foo(a", ")\n") == ("typed", ") + b", ")")
    assert best(cache, "foo(a)", "\n") == ("typed", " + b", "")
    assert cache.look_up(URI, "foo(a", ")x\n") is None


# -- the cache


def test_both_sides_must_match_and_edits_elsewhere_do_not_matter() -> None:
    before, after = "y = 1\n" * 500 + "x = ", "\nz\n" * 200
    cache = stored(before, after, suggest("foo"))
    assert best(cache, before, after) == ("cache", "foo", "")
    assert best(cache, "new line\n" + before + "f", after + "more") == ("cache", "oo", "")
    assert cache.look_up(URI, before, "\nother" + after) is None
    assert cache.look_up(URI, before.replace("1\nx", "2\nx"), after) is None
    assert cache.look_up("file:///b.py", before, after) is None


def test_the_end_of_the_text_must_match_too() -> None:
    assert stored("x = ", "\n", suggest("foo")).look_up(URI, "x = ", "\ny = 1") is None
    assert stored("x = ", "", suggest("foo")).look_up(URI, "x = ", "1") is None
    whole = "\n" * (AFTER + 50)
    assert stored("x = ", whole, suggest("foo")).look_up(URI, "x = ", whole + "more") is not None


def test_typing_narrows_alternatives_and_the_nearest_entry_comes_first() -> None:
    cache = stored("x = ", "", suggest("foo", "1"), suggest("far", "2"), suggest("bar", "3"))
    found = cache.look_up(URI, "x = f", "")
    assert found == Suggestions((suggest("oo", "1"), suggest("ar", "2")), "cache")
    cache.store(URI, "x = f", "", [suggest("ine", "4")], "auto")
    assert best(cache, "x = f", "") == ("cache", "ine", "")
    assert best(cache, "x = fa", "") == ("cache", "r", "")


def test_an_empty_result_is_kept_briefly_for_its_position() -> None:
    clock = Clock()
    cache = SuggestionCache(clock)
    cache.store(URI, "a\nx = ", "\n", [], "auto")
    assert cache.look_up(URI, "a\nx = ", "\n") == Suggestions((), "cache")
    assert cache.look_up(URI, "a\nx = 1", "\n") is None
    assert cache.look_up(URI, "a\nx = ", ")\n") is None
    clock.now += NOTHING_S
    assert cache.look_up(URI, "a\nx = ", "\n") is None


def test_entries_expire() -> None:
    clock = Clock()
    cache = SuggestionCache(clock)
    cache.store(URI, "x = ", "", [suggest("foo")], "auto")
    clock.now += FRESH_S - 1
    assert cache.look_up(URI, "x = ", "") is not None
    clock.now += 1
    assert cache.look_up(URI, "x = ", "") is None
    assert len(cache) == 0


def test_entries_and_characters_are_limited_and_unused_entries_dropped() -> None:
    cache = SuggestionCache(Clock(), capacity=3)
    for number in range(3):
        cache.store(URI, f"{number}\nx = ", "", [suggest("foo")], "auto")
    assert cache.look_up(URI, "0\nx = ", "")
    cache.store(URI, "3\nx = ", "", [suggest("foo")], "auto")
    assert [bool(cache.look_up(URI, f"{number}\nx = ", "")) for number in range(4)] == [True, False, True, True]
    cache.store(URI, "0\nx = 1 + ", "", [], "auto")
    assert len(cache) == 3
    assert cache.look_up(URI, "0\nx = ", "") and not cache.look_up(URI, "2\nx = ", "")
    cache.store(URI, "4\nx = ", "", [suggest("a" * (CHARACTERS - 10))], "auto")
    assert len(cache) == 1
    cache.store(URI, "4\nx = ", "", [suggest("a" * (CHARACTERS + 10))], "auto")
    assert len(cache) == 0


def test_a_newer_entry_replaces_an_older_one() -> None:
    cache = stored("x = ", "", suggest("foo", "1"))
    cache.store(URI, "x = ", "", [suggest("bar", "2")], "auto")
    assert cache.look_up(URI, "x = ", "") == Suggestions((suggest("bar", "2"),), "cache")
    assert len(cache) == 1
    cache.forget(URI)
    assert len(cache) == 0 and cache.look_up(URI, "x = ", "") is None


@pytest.mark.parametrize(
    ("left", "text", "typed", "rest"),
    [
        ("", "    return x", "  ", "  return x"),
        ("", "    return x", "\t", "return x"),
        ("", "    return x", "\tre", "turn x"),
        ("    ", "return x", "    ", "return x"),
        ("    ", "return x", "    b", None),
        ("", "    return x", "r", None),  # the user indents less
        ("x =", "y", "  ", None),  # not indentation
        ("", "    if x:\n        y", "\t", None),  # the lines below would be indented wrongly
    ],
)
def test_typed_indentation_may_differ(left: str, text: str, typed: str, rest: str | None) -> None:
    for shown in (True, False):
        found = stored("a:\n" + left, "\nb", suggest(text), shown=shown).look_up(URI, "a:\n" + left + typed, "\nb")
        assert (found.items[0].text if found else None) == rest


def test_kinds_of_line_ends_do_not_matter() -> None:
    cache = stored("a\r\nif x:", "\r\nb", suggest("\n    y\n    z"))
    assert best(cache, "a\r\nif x:\r\n  ", "\r\nb") == ("cache", "  y\n    z", "")
    cache = stored("a\nif x:", "\nb", suggest("\r\n    y\r\n    z"))
    assert best(cache, "a\nif x:\n    y", "\nb") == ("remainder", "\r\n    z", "")
    cache = stored("a\rif x:", "\rb", suggest(" y"), shown=True)
    assert best(cache, "a\rif x: ", "\rb") == ("typed", "y", "")


def test_emoji_are_ordinary_characters() -> None:
    cache = stored("👍 = '", "'\n", suggest("🇩🇪👩‍👩‍👧 ok"), shown=True)
    assert best(cache, "👍 = '🇩🇪👩", "'\n") == ("typed", "\u200d👩‍👧 ok", "")


def test_very_long_lines() -> None:
    before = "word " * REACH
    cache = stored(before, "", suggest("and more"))
    assert best(cache, before, "") == ("cache", "and more", "")
    assert best(cache, before + "and", "") == ("cache", " more", "")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_many_lines_typed_as_suggested(end: str) -> None:
    text = end.join(f"line {number}" for number in range(LINES - 5))
    cache = stored("a" + end, end + "b", suggest(text))
    found = best(cache, "a" + end + text[:-3], end + "b")
    assert found and found[1] == text[-3:]


# -- the remainder of a longer suggestion

LONGER = "first(a)\n    second(b)\n\n    third"


@pytest.mark.parametrize("accepts", [True, False])
def test_a_longer_suggestion_is_served_line_by_line(accepts: bool) -> None:
    cache = SuggestionCache(Clock())
    before, after = "def f():\n    ", "\nx"
    offered = cache.store(URI, before, after, [suggest(LONGER)], "one")
    seen = []
    while offered:
        suggestion = offered[0]
        seen.append((suggestion.text, suggestion.id))
        cache.shown(URI, before, after, suggestion)
        assert best(cache, before + suggestion.text[:3], after) == ("typed", suggestion.text[3:], "")
        if accepts:
            cache.accepted(suggestion.id)
            assert len(cache) == 1
        before += suggestion.text
        found = cache.look_up(URI, before, after)
        assert found is None or found.origin == "remainder"
        offered = found.items if found else ()
    assert [text for text, _ in seen] == ["first(a)", "\n    second(b)", "\n\n    third"]
    assert seen[0][1] == "1" and len({identifier for _, identifier in seen}) == 3


@pytest.mark.parametrize(
    ("text", "after", "shown"),
    [
        ("a\n", "}\n", "a\n"),
        ("a\nb\n", "}\n", "a\n"),
        ("a\r\n", "}\r\n", "a\r\n"),
        ("a\n", "\n}", "a"),
        ("a\n", "", "a"),
    ],
)
def test_a_whole_line_above_another_one_keeps_its_line_break(text: str, after: str, shown: str) -> None:
    assert best(stored("x\n", after, suggest(text), lines="one"), "x\n", after) == ("cache", shown, "")


def test_equal_alternatives_are_served_once() -> None:
    alternatives = [suggest("a\nb", "1"), suggest("a\nc", "2"), suggest("d", "3")]
    cache = stored("x\n", "\n", *alternatives, lines="one")
    assert cache.look_up(URI, "x\n", "\n") == Suggestions((suggest("a", "1"), suggest("d", "3")), "cache")
    assert cache.look_up(URI, "x\na", "\n") == Suggestions((suggest("\nb", "1+1"), suggest("\nc", "2+1")), "remainder")


def test_the_id_stays_the_same_while_a_line_is_typed() -> None:
    cache = stored("x\n", "\n", suggest(LONGER), lines="one")
    identifiers = [cache.look_up(URI, "x\n" + LONGER[:end], "\n") for end in range(len(LONGER))]
    by_line = [found.items[0].id for found in identifiers if found]
    assert len(by_line) == len(LONGER)
    assert by_line == sorted(by_line) and len(set(by_line)) == 3


def test_an_accepted_suggestion_comes_back_by_undo() -> None:
    cache = stored("x = ", "\n", suggest("foo"), shown=True)
    cache.accepted("1")
    assert cache.look_up(URI, "x = foo", "\n") is None
    assert best(cache, "x = ", "\n") == ("cache", "foo", "")


def test_the_rest_of_a_partly_accepted_suggestion_is_served_and_kept() -> None:
    cache = SuggestionCache(Clock(), capacity=2)
    cache.store(URI, "a\nx = ", "\n", [suggest("foo bar")], "auto")
    cache.shown(URI, "a\nx = ", "\n", suggest("foo bar"))
    cache.store(URI, "b\nx = ", "\n", [suggest("foo", "2")], "auto")
    cache.partly_accepted("1", 3)
    cache.store(URI, "c\nx = ", "\n", [suggest("foo", "3")], "auto")
    assert best(cache, "a\nx = foo", "\n") == ("typed", " bar", "")
    assert cache.look_up(URI, "b\nx = ", "\n") is None
    cache.partly_accepted("1", len("foo bar"))
    assert best(cache, "a\nx = foo", "\n") == ("cache", " bar", "")


def test_swallowed_text_belongs_to_the_line_that_repeats_it() -> None:
    cache = stored("foo(", ")\n", suggest("\n  a\n)", swallow=")"), lines="one")
    found = cache.look_up(URI, "foo(", ")\n")
    assert found and found.items == (suggest("\n  a"),)
    found = cache.look_up(URI, "foo(\n  a", ")\n")
    assert found and found.items == (suggest("\n)", "1+1", swallow=")"),)
    cache = stored("foo(", ")\n", suggest("a)\nb", swallow=")"), lines="one")
    assert best(cache, "foo(", ")\n") == ("cache", "a)", ")")
    assert best(cache, "foo(a)", "\n") == ("remainder", "\nb", "")


# -- anchors


def test_an_anchor_agrees_while_the_user_only_types() -> None:
    anchor = Anchor("y = 1\nx = ", ")\n")
    assert anchor.agrees("y = 1\nx = ", ")\n")
    assert anchor.agrees("y = 1\nx = f(", "))\n")
    assert anchor.agrees("y = 1\nx = f)", "\n")
    assert not anchor.agrees("y = 1\nx =", ")\n")
    assert not anchor.agrees("y = 2\nx = f", ")\n")
    assert not anchor.agrees("y = 1\nx = f", "]\n")
    assert not anchor.agrees("y = 1\nx = ", "\n")
    assert not anchor.agrees("y = 1\nx = " + "a" * (REACH + 1), ")\n")  # pasted


def test_fitting_suggestions_begin_with_what_was_typed() -> None:
    anchor = Anchor("x = ", "\n")
    answer = (suggest("foo(1)", "1"), suggest("bar", "2"), suggest("fo", "3"), suggest("foo(2)", "4"))
    assert anchor.fitting(answer, "x = ", "\n") == answer
    assert anchor.fitting(answer, "x = fo", "\n") == (suggest("o(1)", "1"), suggest("o(2)", "4"))
    assert anchor.fitting(answer, "x = foo(", ")\n") == (suggest("1)", "1", ")"), suggest("2)", "4", ")"))
    assert anchor.fitting(answer, "x = fx", "\n") == ()
    assert anchor.fitting(answer, "x = fo", "y\n") == ()
    assert anchor.fitting(answer, "x", "\n") == ()

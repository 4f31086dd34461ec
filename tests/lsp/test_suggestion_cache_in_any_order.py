"""The suggestion cache under typing, deleting, undoing and accepting in any order, against a plain list."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lsp.suggestion_cache import Anchor, SuggestionCache
from lsp.suggestions import Suggestion, Suggestions
from tests.lsp.clock import Clock
from tests.lsp.test_suggestion_cache import URI, suggest

TEXTS = ["foo(bar)", "foo(baz)", "f", "(a[0])", "\n  foo()\n  b", "a)", "oo\n\nb(", '("a")', "🙂o", "  b\n", ""]
PAIRS = {"(": ")", "[": "]", '"': '"'}


class AnyOrder(RuleBasedStateMachine):
    """Edits a small text. `answers` holds (before, after, suggestion) of all suggestions that were ever stored."""

    @initialize(
        before=strategies.sampled_from(["", "a = ", "b\r\n", "(\n  "]), after=strategies.sampled_from(["", ")", "\nb"])
    )
    def start(self, before: str, after: str) -> None:
        self.clock, self.number = Clock(), 0
        self.cache = SuggestionCache(self.clock)
        self.before, self.after = before, after
        self.history: list[tuple[str, str]] = []
        self.answers: list[tuple[str, str, Suggestion]] = []
        self.runs: list[tuple[Anchor, str, str]] = []
        self.screen: tuple[str, str, Suggestion] | None = None

    def edit(self, before: str, after: str) -> None:
        self.history.append((self.before, self.after))
        self.before, self.after = before, after

    def keep(self, before: str, after: str, text: str, swallow: bool) -> tuple[Suggestion, ...]:
        self.number += 1
        closer = after[:1] if swallow and after[:1] in (")", "]") and after[0] in text else ""
        suggestion = suggest(text, str(self.number), closer)
        self.answers.append((before, after, suggestion))
        return (suggestion,)

    @rule(text=strategies.sampled_from(TEXTS), swallow=strategies.booleans(), one=strategies.booleans())
    def model_answers(self, text: str, swallow: bool, one: bool) -> None:
        suggestions = self.keep(self.before, self.after, text, swallow) if text else ()
        for suggestion in self.cache.store(URI, self.before, self.after, suggestions, "one" if one else "auto"):
            self.check(suggestion)

    @rule(text=strategies.text('fobar()[]"\n \t🙂', max_size=2), auto_close=strategies.booleans())
    def types(self, text: str, auto_close: bool) -> None:
        closer = PAIRS.get(text[-1:], "") if auto_close else ""
        self.edit(self.before + text, closer + self.after)

    @precondition(lambda self: self.screen)
    @rule(count=strategies.integers(1, 6))
    def types_as_suggested(self, count: int) -> None:
        _, _, suggestion = self.screen
        if self.offered() == suggestion:
            self.edit(self.before + suggestion.text[:count], self.after)
            rest = suggestion.text[count:]
            if rest.strip():
                found = self.cache.look_up(URI, self.before, self.after)
                assert found == Suggestions((replace(suggestion, text=rest),), "typed")

    @rule(count=strategies.integers(1, 5))
    def deletes(self, count: int) -> None:
        self.edit(self.before[:-count], self.after)

    @rule()
    def types_over_a_closer(self) -> None:
        if self.after[:1] in (")", "]", '"'):
            self.edit(self.before + self.after[0], self.after[1:])

    @rule()
    def undoes(self) -> None:
        if self.history:
            self.before, self.after = self.history.pop()

    @rule()
    def sees_what_is_served(self) -> None:
        if suggestion := self.offered():
            self.cache.shown(URI, self.before, self.after, suggestion)
            self.screen = (self.before, self.after, suggestion)
            assert self.offered() == suggestion

    @precondition(lambda self: self.screen)
    @rule()
    def accepts(self) -> None:
        before, after, suggestion = self.screen
        if (self.before, self.after) == (before, after):
            self.cache.accepted(suggestion.id)
            self.edit(before + suggestion.text, after[len(suggestion.swallow) :])
            self.screen = None

    @rule(seconds=strategies.sampled_from([0.1, 20.0, 700.0]))
    def waits(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def run_starts(self) -> None:
        self.runs.append((Anchor(self.before, self.after), self.before, self.after))

    @precondition(lambda self: self.runs)
    @rule(text=strategies.sampled_from(TEXTS), swallow=strategies.booleans())
    def run_ends(self, text: str, swallow: bool) -> None:
        anchor, before, after = self.runs.pop()
        for suggestion in anchor.fitting(self.keep(before, after, text, swallow), self.before, self.after):
            assert anchor.agrees(self.before, self.after)
            self.check(suggestion)
        typed_on = self.before.startswith(before) and self.after == after
        assert anchor.agrees(self.before, self.after) >= typed_on

    def offered(self) -> Suggestion | None:
        found = self.cache.look_up(URI, self.before, self.after)
        return found.items[0] if found and found.items else None

    def check(self, suggestion: Suggestion) -> None:
        """Accepting this gives the same text as accepting a stored suggestion at its own position, or its first lines,
        or the same with the user's indentation."""
        assert suggestion.text
        assert self.after.startswith(suggestion.swallow)
        gives = self.before + suggestion.text
        right = self.after[len(suggestion.swallow) :]
        for before, after, whole in self.answers:
            if whole.id != suggestion.id.partition("+")[0] or not self.before.startswith(before):
                continue
            expected, right_then = before + whole.text, after[len(whole.swallow) :]
            if (gives.replace("\r\n", "\n"), right) == (expected.replace("\r\n", "\n"), right_then):
                return
            more = expected.replace("\r\n", "\n").removeprefix(gives.replace("\r\n", "\n"))
            if more.startswith("\n") and not right.removesuffix(right_then).strip('()[]"'):
                return
            line_before, line_gives = before.replace("\r", "\n").split("\n")[-1], gives[len(before) :]
            if not line_before.strip() and right == right_then and line_gives.lstrip() == whole.text.lstrip():
                return
        raise AssertionError(f"{suggestion} at {self.before!r}|{self.after!r} is none of {self.answers}")

    @invariant()
    def all_that_is_served_is_an_answer(self) -> None:
        found = self.cache.look_up(URI, self.before, self.after)
        for suggestion in found.items if found else ():
            self.check(suggestion)


AnyOrder.TestCase.settings = settings(max_examples=80, stateful_step_count=30)
TestAnyOrder = AnyOrder.TestCase

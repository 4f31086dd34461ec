"""Each stage past its bound: its work does not grow with the square of its input, nor past the deadline.

Work is counted, not timed: calls of `stop`, tokens, characters that are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from engine.errors import Cancelled, InputError
from engine.token_tree import MOST_NODES, TokenTree
from infill.checks import brackets, checks, parse
from infill.checks.context import CheckContext
from infill.code import context, indentation
from infill.code.brackets import Scan, scan
from infill.code.context import FAR_CHARACTERS, OTHER_CHARACTERS, ContextBudget, ShownContext, show_context
from infill.complete.copy_draft import MAX_ALL_CHARS, MAX_DRAFT_LINES, copy_drafts
from infill.complete.last_draft import LastDraft
from infill.complete.pipeline import AnyCompleter
from infill.complete.prepared import prepare
from infill.prompts.prompt import HoleKind
from infill.request import MOST_CHARACTERS, MOST_HOLES, Hole, InfillRequest, Neighbour
from tests.infill.fakes import pocket, request, tiny_completer
from tests.infill.tiny_coder import coder, fim_prompt

LINE = HoleKind(one_line=True, whole_lines=False)


def count_calls(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[int]:
    """An entry for each call from now on."""
    function, calls = getattr(module, name), list[int]()

    def counting(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return function(*arguments, **named)

    monkeypatch.setattr(module, name, counting)
    return calls


def test_a_request_is_no_larger_than_its_bounds() -> None:
    with pytest.raises(InputError, match="2,000,001 characters; send at most 2,000,000"):
        prepare(InfillRequest("x" * (MOST_CHARACTERS + 1), (Hole(0, 0),)), pocket().budget)
    holes = tuple(Hole(at, at) for at in range(MOST_HOLES + 1))
    with pytest.raises(InputError, match="1,001 holes; send at most 1,000"):
        prepare(InfillRequest("x" * 2000, holes), pocket().budget)


@pytest.mark.parametrize("completer", [tiny_completer(), coder()])
def test_a_hole_above_the_last_one_reads_no_text_between_them(
    completer: AnyCompleter, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(f"value_{number} = {number}\n" for number in range(1000))
    completer.last_draft = LastDraft.at(lines + "x = ", "1")
    read, read_tree = list[int](), TokenTree.read

    def counting(tree: TokenTree, branches: Sequence[Sequence[int]]) -> None:
        read.append(sum(map(len, branches)))
        read_tree(tree, branches)

    monkeypatch.setattr(TokenTree, "read", counting)
    completer.complete(InfillRequest(lines, (Hole(500, 500),), "python", lines="one"))
    assert read and max(read) < 1000


def test_a_tree_of_tokens_is_bounded() -> None:
    completer = coder()
    with completer.decoder.cache.encoded([1, 2]) as lease, TokenTree(completer.decoder.model, lease.kv, [3]) as tree:
        with pytest.raises(InputError, match="ask for fewer"):
            tree.read([[4] * MOST_NODES])


def test_other_files_are_read_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    outlined, sources = list[int](), list[int]()

    def outline(text: str, *rest: object) -> str:
        outlined.append(len(text))
        return ""

    def snippet(near: str, texts: Sequence[str], limit: int) -> str:
        sources.extend(map(len, texts))
        return ""

    monkeypatch.setattr(context, "outline", outline)
    monkeypatch.setattr(context, "snippet", snippet)
    neighbours = tuple(Neighbour(f"{number}.py", f"# {number}\n" * 50_000) for number in range(40))
    text = "x = 1\n" * 100_000
    show_context(text, 300_000, 300_000, "python", None, neighbours, ContextBudget(600, 300, 400))
    assert max(sources) <= FAR_CHARACTERS and max(outlined) <= 2 * FAR_CHARACTERS
    assert sum(sources) <= OTHER_CHARACTERS + 2 * FAR_CHARACTERS


@pytest.mark.parametrize("character", ["\U0001f600", "字", "\x01"])
def test_scripts_with_many_tokens_per_character_make_no_longer_prompts(character: str) -> None:
    family = fim_prompt()
    budget = family.budget
    shown = ShownContext(
        character * budget.header, character * budget.prefix, character * budget.suffix, None, character * 4000
    )
    assert len(family.fill(shown, LINE).tokens) < 0.5 * (budget.header + budget.prefix + budget.suffix) + 900


def test_copies_are_bounded_and_end_at_the_deadline() -> None:
    blank = "value = [\n" + "\n" * 100_000
    (found, *_) = copy_drafts("value = [", "\n", "python", [blank + "1]\n"], 5, False)[:1] or [None]
    assert found is None or found.text.count("\n") <= MAX_DRAFT_LINES
    calls = [0]

    def stop() -> bool:
        calls[0] += 1
        return True

    text = "call_something(a, b)\n" * 1000
    assert copy_drafts(text + "call_something(", ")\n", "python", [text] * 60, 2, True, stop) == []
    assert 0 < calls[0] <= 62 and len(text) * 62 > MAX_ALL_CHARS


def test_trailing_comments_are_scanned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scanned = count_calls(monkeypatch, indentation, "scan")
    text = "def f():\n" + "    # comment\n" * 5_000
    assert indentation.expects_block(text, len(text), "python")
    assert len(scanned) < 10
    mixed = "if (x) {\n" + "// one\n/* two */\n" * 5_000
    scanned.clear()
    indentation.expects_block(mixed, len(mixed), "cpp")
    assert len(scanned) < 10


def test_the_indentation_check_reads_what_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[int]()

    def counting(text: str, language: str, end: int | None = None, start: int = 0, *rest: Any) -> Scan:
        read.append((len(text) if end is None else end) - start)
        return scan(text, language, end, start, *rest)

    monkeypatch.setattr(checks, "scan", counting)
    before = '"""\n' + "def x(\n" * 15_000
    assert checks.wrong_indentation(CheckContext(before, "y = 1\n", "# z\n" * 20_000, "python")) is None
    assert 0 < sum(read) < 1_000_000


def test_cutting_back_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    scanned = count_calls(monkeypatch, parse, "unbalanced_brackets")
    assert parse.cut_back("(" * 1000, "a)\n" * 40, "]" * 1000, "python", stop=lambda: True) == ""
    assert not scanned and brackets.AFTER_CHARS < 100_000


def test_a_prompt_is_read_up_to_the_deadline_and_the_next_request_goes_on() -> None:
    completer = coder()
    infill_request = request("".join(f"value_{number} = {number}\n" for number in range(60)) + "x = §\n", "one")
    late = completer.complete(replace(infill_request, deadline_ms=0.001))
    (completion,) = late.completions
    assert (completion.shown, completion.candidates) == (False, ())
    assert completion.reason == "the deadline left no time for this hole"
    cold = coder().complete(infill_request)
    rest = completer.complete(infill_request)
    assert rest.completions[0].text == cold.completions[0].text and rest.encoded_tokens < cold.encoded_tokens


def test_a_stage_that_ends_early_does_not_lose_the_cancellation() -> None:
    """`stop` that is True only once, in a stage that raises nothing."""
    stopping = iter([True])
    prepared = prepare(request("x = §\n"), pocket().budget)
    assert prepared.stop is None
    prepared = prepare(request("x = §\n"), pocket().budget, lambda: next(stopping, False))
    assert prepared.stop is not None and prepared.stop() and prepared.stop() and prepared.stop_parsing()
    with pytest.raises(Cancelled):
        tiny_completer().complete(request("x = §\n"), stop=lambda: True)

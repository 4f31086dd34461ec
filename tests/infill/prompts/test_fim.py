"""Prompts of code models: the order of the parts, where the middle begins, and text that is spelled again."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine
from infill.code.context import ShownContext
from infill.complete.prepared import prepare
from infill.prompts.fim import ANCHOR_LINES, LONGEST_JOINABLE, FimInput, anchor, joinable
from infill.prompts.prompt import HoleKind
from infill.request import Hole, InfillRequest
from tests.infill.tiny_coder import UNUSED_ROWS, coder_tokens, fim_prompt

LINE, WHOLE = HoleKind(one_line=True, whole_lines=False), HoleKind(one_line=True, whole_lines=True)
LINES = [f"value_{number} = first + {number}" for number in range(40)]


def fill(before: str, after: str = "", kind: HoleKind = LINE, header: str = "", path: str | None = None) -> FimInput:
    return fim_prompt().fill(ShownContext(header, before, after, "python", path), kind)


def parts(tokens: list[int]) -> list[str]:
    """The names of special tokens and the texts between them, in their order."""
    text_tokens, found, run = coder_tokens(), list[str](), list[int]()
    for token in tokens:
        if token in text_tokens.specials:
            found += [text_tokens.decode(run)] * bool(run)
            found.append(text_tokens.tokenizer.id_to_token(token))
            run = []
        else:
            run.append(token)
    return [*found, *[text_tokens.decode(run)] * bool(run)]


# layout


def test_a_short_file_is_all_middle() -> None:
    prompt = fill("x = 1\ny = 2\nz = 3", "\nw = 4\n")
    assert parts(prompt.tokens) == [
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "\nw = 4\n",
        "<|fim_middle|>",
        "x = 1\ny = 2\nz = 3",
    ]
    assert prompt.held == "" and parts(prompt.plain) == ["<|fim_prefix|>", "x = 1\ny = 2\nz = 3"]


def test_the_prefix_ends_at_the_anchor_and_the_middle_goes_on_from_it() -> None:
    before = "\n".join(LINES[:20]) + "\nresult = val"
    prompt = fill(before, "\ndone\n")
    known, middle = "\n".join(LINES[:16]) + "\n", "\n".join(LINES[16:20]) + "\nresult ="
    assert parts(prompt.tokens) == ["<|fim_prefix|>", known, "<|fim_suffix|>", "\ndone\n", "<|fim_middle|>", middle]
    assert prompt.held == " val"
    assert parts(prompt.plain) == ["<|fim_prefix|>", known + middle]


def test_other_files_and_the_path_come_first() -> None:
    prompt = fill("x =", "\n", header="# other.py\ndef f(): ...\n", path="src/main.py")
    assert parts(prompt.tokens)[:5] == [
        "<|file_sep|>",
        "# other.py\ndef f(): ...\n",
        "<|file_sep|>",
        "src/main.py\n",
        "<|fim_prefix|>",
    ]
    assert parts(prompt.plain)[:5] == parts(prompt.tokens)[:5]


def test_after_whole_lines_the_suffix_begins_with_the_line_break_that_ends_them() -> None:
    assert parts(fill("x = 1\n", "y = 2\n", WHOLE).tokens)[2] == "\ny = 2\n"
    assert parts(fill("x = 1\n", "y = 2\n").tokens)[2] == "y = 2\n"


@pytest.mark.parametrize("closers", [")", "])", '")', "'", ");", "`", "  }", '"""'])
def test_closers_after_the_cursor_are_left_out(closers: str) -> None:
    assert parts(fill("print(", f"{closers}\nnext()\n").tokens)[2] == "\nnext()\n"
    assert parts(fill("print(", closers).tokens) == ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "print"]


@pytest.mark.parametrize("rest", [") + 1", " and x)", ") # note", "value)"])
def test_other_text_after_the_cursor_is_shown(rest: str) -> None:
    assert parts(fill("print(", f"{rest}\nnext()\n").tokens)[2] == f"{rest}\nnext()\n"


def test_the_prompts_of_an_empty_file_have_a_token_before_the_last() -> None:
    prompt = fill("")
    assert parts(prompt.tokens) == ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
    assert parts(prompt.plain) == ["<|file_sep|>", "<|fim_prefix|>"]


def test_marks_in_the_text_stay_text() -> None:
    prompt = fill("a = '<|fim_middle|>' +", "\n# <|file_sep|>\n", path="<|fim_prefix|>.py")
    assert parts(prompt.tokens) == [
        "<|file_sep|>",
        "<|fim_prefix|>.py\n",
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "\n# <|file_sep|>\n",
        "<|fim_middle|>",
        "a = '<|fim_middle|>'",
    ]
    assert prompt.tokens.count(coder_tokens().special("<|fim_middle|>")) == 1


def test_banned_tokens_are_those_without_text_or_name() -> None:
    family, size = fim_prompt(), len(coder_tokens().bytes_of)
    assert family.banned == tuple(range(size, size + UNUSED_ROWS))
    assert family.ends == set(coder_tokens().specials)


# the anchor


@given(st.lists(st.text("ab ", max_size=4), min_size=1, max_size=40))
def test_the_anchor_is_the_start_of_a_line_whose_number_is_a_multiple(lines: list[str]) -> None:
    before = "\n".join(lines)
    at, number = anchor(before), len(lines) - 1
    assert at == 0 or before[at - 1] == "\n"
    assert before[:at].count("\n") % ANCHOR_LINES == 0
    below = before[at:].count("\n")
    assert below == number if at == 0 else 1 <= below <= ANCHOR_LINES


@given(st.integers(0, 39), st.text(st.characters(exclude_characters="\n"), max_size=30))
def test_the_anchor_stays_while_a_line_is_typed(lines: int, typed: str) -> None:
    above = "".join(line + "\n" for line in LINES[:lines])
    assert anchor(above + typed) == anchor(above)


@pytest.mark.parametrize(("lines", "number"), [(0, 0), (1, 0), (8, 0), (9, 8), (16, 8), (17, 16), (39, 32)])
def test_the_line_number_of_the_anchor(lines: int, number: int) -> None:
    above = "".join(line + "\n" for line in LINES[:lines])
    assert above[: anchor(above)].count("\n") == number


@pytest.mark.parametrize("after", ["", "\n\ndef main():\n    return 0\n"])
def test_a_keystroke_changes_few_tokens_of_the_prompt(after: str) -> None:
    source = (Path(engine.__file__).parent / "decoder.py").read_text("utf-8")
    text = "".join(source.splitlines(keepends=True)[:40])
    changed, last = [], list[int]()
    for end in range(len(text) + 1):
        request = InfillRequest(text[:end] + after, (Hole(end, end),), "python", lines="one")
        prepared = prepare(request, fim_prompt().budget)
        tokens = fim_prompt().fill(prepared.shown, prepared.kinds[0]).tokens
        shared = next(
            (index for index, pair in enumerate(zip(tokens, last, strict=False)) if pair[0] != pair[1]),
            min(len(tokens), len(last)),
        )
        changed.append(len(tokens) - shared)
        last = tokens
    assert statistics.median(changed) <= 3
    assert statistics.mean(changed) < 12


# text that is spelled again


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("", ""),
        ("word", "word"),
        ("x = word", " word"),
        ("foo.", "."),
        ("foo.bar", ".bar"),
        ("foo_bar", "_bar"),
        ("x = ", " "),
        ("x =", " ="),
        ("x +=", " +="),
        ("    ", " "),
        ("x\n    ", " "),
        ("\t", "\t"),
        ("\t\t", "\t"),
        ("print(le", "(le"),
        ("print(", "("),
        ("print((", "(("),
        ("x = 12", ""),
        ("x1", ""),
        ("x = 1\n", ""),
        ("\r", ""),
        ("größe", "größe"),
        ("don't", "'t"),
    ],
)
def test_the_end_that_the_next_token_may_join_is_held(text: str, held: str) -> None:
    assert joinable(text) == held


def test_a_long_word_is_held_in_part() -> None:
    assert joinable("x" * 100) == "x" * LONGEST_JOINABLE


@given(st.text(max_size=60))
def test_what_is_held_is_the_end_of_the_text(text: str) -> None:
    held = joinable(text)
    assert text.endswith(held) and len(held) <= LONGEST_JOINABLE and "\n" not in held


HELD = st.one_of(
    st.sampled_from(["word", " self", "(le", ".", " ", "\t", "größe", "日本", "🎨", " +=", "_bar"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
)


@given(HELD, st.data())
def test_any_allowed_tokens_spell_the_held_text(held: str, data: st.DataObject) -> None:
    family, tokens = fim_prompt(), coder_tokens()
    written: list[int] = []
    while (allowed := family.allowed(held, written)) is not None:
        rest = held.encode()[len(b"".join(tokens.bytes_of[token] for token in written)) :]
        assert sorted(allowed) == [
            token
            for token, piece in enumerate(tokens.bytes_of)
            if piece and (piece.startswith(rest) or rest.startswith(piece))
        ]
        written.append(data.draw(st.sampled_from(allowed)))
    assert b"".join(tokens.bytes_of[token] for token in written).startswith(held.encode())
    assert family.allowed(held, [*written, *tokens.encode("anything")]) is None


def test_without_held_text_everything_is_allowed() -> None:
    assert fim_prompt().allowed("", []) is None

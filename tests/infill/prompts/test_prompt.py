"""Cutting tokens into prompt and canvas, and token healing at the cursor."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.canvas import Canvas
from engine.errors import ModelError
from infill.prompts.chat import ChatPrompt
from infill.prompts.families import load_family
from infill.prompts.pocket import PocketPrompt
from infill.prompts.prompt import HoleColumns, HoleKind, anchor, cut_front, plan_canvas, split_suffix, suffix_texts
from infill.prompts.text_tokens import TextTokens
from tests.infill.fakes import POCKET, chat_tokenizer, hole_ranges, pocket_tokens

BREAK = 1
BREAKS = frozenset({BREAK})
ONE_LINE, WHOLE, BLOCK = HoleKind(True, False), HoleKind(True, True), HoleKind(False, True)


def planned(
    tokens: TextTokens,
    lead: list[int],
    prefix: list[int],
    holes: list[HoleKind],
    runs: list[list[int]],
    slots: list[int],
) -> tuple[Canvas, tuple[HoleColumns, ...]]:
    layout = plan_canvas(tokens, lead, prefix, holes, runs, [2], []).lay_out(slots)
    return layout.canvas, layout.holes


def lines_of(*lengths: int) -> list[int]:
    """Tokens of lines with these lengths; each line begins with a line break."""
    return [token for length in lengths for token in [BREAK, *[9] * (length - 1)]]


def test_the_canvas_begins_at_every_fourth_line_break() -> None:
    prefix = lines_of(*[5] * 40)
    starts = [anchor(prefix[:end], BREAKS, near=48) for end in range(60, 200)]
    assert starts == sorted(starts)
    assert set(starts) <= set(range(15, 200, 20))
    assert all(12 <= end - start <= 48 for end, start in zip(range(60, 200), starts, strict=True))


def test_the_near_prefix_is_bounded_despite_long_lines() -> None:
    for prefix in (lines_of(300), lines_of(30, 30, 30, 30), [9] * 1000, lines_of(100, 3), [9], []):
        start = anchor(prefix, BREAKS, near=48)
        assert 0 <= len(prefix) - start <= 48
        assert not prefix or start < len(prefix)


def test_without_line_breaks_the_canvas_begins_at_steps_of_sixteen() -> None:
    starts = {anchor([9] * length, BREAKS, near=48) for length in range(49, 400)}
    assert all(start % 16 == 0 for start in starts)


def test_the_suffix_is_cut_at_a_line_break() -> None:
    suffix = lines_of(8, 8, 8, 8, 8)
    near, far = split_suffix(suffix, BREAKS, near=20, far=10)
    assert near == suffix[:16] and far == suffix[16:26]
    assert split_suffix(suffix, BREAKS, near=40, far=10) == (suffix, [])
    assert split_suffix([9] * 50, BREAKS, near=20, far=100) == ([9] * 20, [9] * 30)


def test_the_front_is_cut_in_steps_and_at_line_breaks() -> None:
    tokens = lines_of(*[7] * 60)
    for limit in (0, 1, 63, 100, 200):
        kept = cut_front(tokens, limit, BREAKS)
        assert len(kept) <= limit and tokens[len(tokens) - len(kept) :] == kept
    cuts = {length - len(cut_front(tokens[:length], 200, BREAKS)) for length in range(201, 420)}
    assert len(cuts) <= 5
    assert all(tokens[cut] == BREAK for cut in cuts)
    assert cut_front(tokens, 1000, BREAKS) == tokens


def test_an_unfinished_token_moves_into_the_hole() -> None:
    tokens = pocket_tokens()
    prefix = tokens.encode("    ret")
    canvas, (hole,) = planned(tokens, [], prefix, [ONE_LINE], [tokens.encode("\n")], [8])
    assert hole.healed == tokens.decode(prefix[-1:])
    assert hole_ranges(canvas) == [(hole.start, hole.stop)] == [(len(prefix) - 1, len(prefix) + 7)]
    allowed = canvas.allowed[hole.start].tolist()
    assert prefix[-1] in allowed and tokens.encode("return")[0] not in prefix
    assert all(tokens.bytes_of[token].decode("utf-8", "replace").startswith(hole.healed) for token in allowed)


def test_a_token_without_longer_ones_stays_before_the_hole() -> None:
    tokens = pocket_tokens()
    longest = max(range(tokens.size), key=lambda token: len(tokens.bytes_of[token]))
    canvas, (hole,) = planned(tokens, [], [longest], [ONE_LINE], [[]], [4])
    assert (hole.start, hole.healed, dict(canvas.allowed)) == (1, "", {})


def test_the_lead_is_never_moved_into_the_hole() -> None:
    tokens = pocket_tokens()
    lead = tokens.encode("re")
    canvas, (hole,) = planned(tokens, lead, [], [ONE_LINE], [[]], [4])
    assert (hole.start, hole.healed) == (len(lead), "")


def test_part_of_a_character_is_never_moved_into_the_hole() -> None:
    tokens = pocket_tokens()
    prefix = tokens.encode("日")
    assert tokens.decode(prefix[-1:]) == "\ufffd"
    _, (hole,) = planned(tokens, [], prefix, [ONE_LINE], [[]], [4])
    assert (hole.start, hole.healed) == (len(prefix), "")


def test_healing_adds_no_line_break_to_a_hole_of_one_line() -> None:
    tokens = pocket_tokens()
    prefix = tokens.encode("x = 1\n")
    for kind in (ONE_LINE, WHOLE):
        canvas, (hole,) = planned(tokens, [], prefix, [kind], [[]], [4])
        assert hole.healed == "\n"
        assert all(tokens.bytes_of[token].count(b"\n") == 1 for token in canvas.allowed[hole.start].tolist())


def test_healing_excludes_tokens_of_two_line_breaks(tmp_path: Path) -> None:
    tokens = TextTokens.read(chat_tokenizer(tmp_path))
    prefix = tokens.encode("x = 1\n")
    canvas, (hole,) = planned(tokens, [], prefix, [BLOCK], [[]], [4])
    assert tokens.decode(canvas.allowed[hole.start].tolist()[-1:]) == "\n\n"
    canvas, (hole,) = planned(tokens, [], prefix, [WHOLE], [[]], [4])
    assert (hole.healed, dict(canvas.allowed)) == ("", {})


def test_each_hole_is_healed_on_its_own() -> None:
    tokens = pocket_tokens()
    runs = [tokens.encode(" = so"), tokens.encode("\n")]
    canvas, holes = planned(tokens, [], tokens.encode("def"), [ONE_LINE] * 2, runs, [4, 6])
    assert hole_ranges(canvas) == [(hole.start, hole.stop) for hole in holes]
    assert [hole.stop - hole.start for hole in holes] == [4, 6]
    assert set(canvas.allowed) <= {hole.start for hole in holes}
    known = canvas.tokens.tolist()
    assert tokens.decode(known[holes[0].stop : holes[1].start]) + holes[1].healed == " = so"


def test_the_line_end_after_whole_lines_begins_the_next_run() -> None:
    assert suffix_texts([WHOLE, ONE_LINE, BLOCK], ["b", "c", ""]) == ["\nb", "c", "\n"]


def test_families_are_loaded_by_name(tmp_path: Path) -> None:
    assert isinstance(load_family("pocket", POCKET), PocketPrompt)
    with pytest.raises(ModelError, match="correct `gesso.family`"):
        load_family("chat", POCKET)
    with pytest.raises(ModelError, match="'third'.*chat, masked, pocket"):
        load_family("third", POCKET)


def test_every_family_has_the_interface() -> None:
    for kind in (PocketPrompt, ChatPrompt):
        assert kind.max_canvas > sum((*kind.slots,)) / 2
        assert callable(kind.plan) and callable(kind.causal_prompt)

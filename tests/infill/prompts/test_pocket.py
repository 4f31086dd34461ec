"""The pocket prompt: the canvas pins the surrounding text, and typing keeps the beginning of the prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from engine.config import SamplingConfig
from infill.code.context import show_context
from infill.prompts.pocket import Window
from infill.prompts.prompt import HoleKind, Layout
from infill.request import Hole, InfillRequest
from tests.cpu_time import takes_less
from tests.infill.fakes import POCKET, known_texts, pocket, tiny_completer
from train.layout import BOS, PREFIX, SUFFIX, prompt_tokens

SOURCE = "import os\nfrom pathlib import Path\n\n\n" + "".join(
    f'''def read_{number}(path, size={number}):
    """Reads {number} things."""
    found = []
    for line in path.open():
        if line.strip() == "é{number}":
            found.append(line[:size])
    return found


'''
    for number in range(60)
)


def lay_out(text: str, *holes: tuple[int, int], slots: int = 16, whole: bool = False, one: bool = True) -> Layout:
    context = show_context(text, holes[0][0], holes[-1][1], "python", "a.py", (), pocket().budget)
    between = [text[a[1] : b[0]] for a, b in zip(holes, holes[1:], strict=False)]
    kinds = [HoleKind(one_line=one, whole_lines=whole)] * len(holes)
    return pocket().plan(context, kinds, between).lay_out([slots] * len(holes))


@pytest.mark.parametrize("at", [0, 3, 10, 500, 1234, 4321, len(SOURCE) - 1, len(SOURCE)])
def test_the_text_around_the_hole_is_pinned(at: int) -> None:
    layout = lay_out(SOURCE, (at, at))
    before, after = known_texts(pocket().tokens, layout)
    assert SOURCE[:at].endswith(before) and SOURCE[at:].startswith(after)
    assert bool(before) == (at > 0) and bool(after) == (at < len(SOURCE))


def test_the_text_between_holes_is_pinned() -> None:
    at = SOURCE.index("found = []", 3000)
    holes = [(at, at + 5), (at + 8, at + 10), (at + 40, at + 40)]
    layout = lay_out(SOURCE, *holes)
    before, *between, after = known_texts(pocket().tokens, layout)
    assert between == [SOURCE[at + 5 : at + 8], SOURCE[at + 10 : at + 40]]
    assert SOURCE[:at].endswith(before) and SOURCE[at + 40 :].startswith(after)


def test_a_hole_of_whole_lines_is_followed_by_a_line_break() -> None:
    at = SOURCE.index("    for line", 2000)
    _, after = known_texts(pocket().tokens, lay_out(SOURCE, (at, at), whole=True))
    assert after.startswith("\n    for line")


def test_the_prompt_is_laid_out_as_in_training() -> None:
    text = SOURCE[: pocket().budget.prefix - 200]
    at = len(text) - 100
    layout = lay_out(text, (at, at))
    tokens = pocket().tokens
    suffix_end = layout.prompt.index(PREFIX)
    assert layout.prompt[:3] == [BOS, tokens.special("<|python|>"), SUFFIX]
    far_suffix, far_prefix = layout.prompt[3:suffix_end], layout.prompt[suffix_end + 1 :]
    language = tokens.special("<|python|>")
    assert layout.prompt == prompt_tokens(np.array(far_prefix), np.array(far_suffix), language).tolist()
    before, after = known_texts(tokens, layout)
    assert tokens.decode(far_prefix) + before in text[:at] + before
    assert text[at:].startswith(after + tokens.decode(far_suffix))


def test_the_canvas_continues_the_prompt_without_a_gap() -> None:
    at = 3000
    layout = lay_out(SOURCE, (at, at))
    tokens = pocket().tokens
    before, _ = known_texts(tokens, layout)
    shown = tokens.decode(layout.prompt[layout.prompt.index(PREFIX) + 1 :]) + before
    common = next(n for n in range(len(shown), 0, -1) if SOURCE[:at].endswith(shown[-n:]))
    assert common > 300
    assert shown[:-common].count("\n") < 12  # the outline is before it


@pytest.mark.parametrize("text", [SOURCE, "x" * 100_000, "é日😀" * 20_000, "a b " * 25_000, "\n" * 5000])
def test_prompt_and_canvas_stay_within_their_limits(text: str) -> None:
    for at in (0, len(text) // 2, len(text)):
        layout = lay_out(text, (at, at), slots=32)
        assert len(layout.prompt) <= Window().prompt
        assert layout.canvas.width <= pocket().max_canvas


def test_a_line_of_100_kilobytes_is_quick() -> None:
    text = "x = [" + "12, " * 25_000 + "]"
    lay_out(text, (50_000, 50_000))
    assert takes_less(0.5, lambda attempt: lay_out(text, (50_001 + attempt, 50_001 + attempt)))


def test_an_empty_file_has_an_empty_prompt_and_only_a_hole() -> None:
    layout = lay_out("", (0, 0), whole=True)
    assert len(layout.prompt) == 4
    assert known_texts(pocket().tokens, layout) == ["", "\n"]


def test_an_unknown_language_is_plain_text() -> None:
    context = show_context("x", 1, 1, "cobol", None, (), pocket().budget)
    layout = pocket().plan(context, [HoleKind(True, False)], []).lay_out([4])
    assert layout.prompt[1] == pocket().tokens.special("<|text|>")


def test_special_tokens_but_the_null_token_are_banned() -> None:
    one, block = lay_out("x = \n", (4, 4)), lay_out("x = \n", (4, 4), one=False)
    tokens = pocket().tokens
    assert set(block.banned.tolist()) == set(tokens.specials) - {pocket().null_token}
    assert set(one.banned.tolist()) == set(block.banned.tolist()) | set(tokens.line_breaks)


def test_text_that_looks_like_special_tokens_stays_text() -> None:
    text = "a = '<|suffix|><|prefix|>'\n" * 20
    layout = lay_out(text, (200, 200))
    assert layout.prompt.count(SUFFIX) == layout.prompt.count(PREFIX) == 1
    assert not set(layout.canvas.tokens.tolist()) & set(pocket().tokens.specials)


def type_on(text: str, at: int, typed: str) -> Sequence[tuple[str, int]]:
    return [(text[:at] + typed[:count] + text[at:], at + count) for count in range(len(typed) + 1)]


TYPED = "    if size > 3:\n        total = sum(len(line) for line in found)\n        print(total, size)\n"


def test_typing_a_line_keeps_or_extends_the_prompt() -> None:
    at = SOURCE.index("    return found", 6000)
    prompts = [lay_out(text, (cursor, cursor)).prompt for text, cursor in type_on(SOURCE, at, TYPED)]
    changes = [(one, other) for one, other in zip(prompts, prompts[1:], strict=False) if other[: len(one)] != one]
    assert len(changes) <= 2
    assert len({tuple(prompt) for prompt in prompts}) <= 5


def test_two_hundred_keystrokes_encode_few_tokens() -> None:
    completer = tiny_completer(SamplingConfig(max_steps=1), copy_drafts=False)
    at = SOURCE.index("    return found", 6000)
    typed = (TYPED + "    for other in found:\n        size += len(other)\n        # and so on\n" * 3)[:200]
    encoded, sizes = [], []
    for text, cursor in type_on(SOURCE, at, typed):
        layout = lay_out(text, (cursor, cursor))
        lease = completer.denoiser.cache.acquire(layout.prompt)
        encoded.append(lease.encoded)
        sizes.append(len(layout.prompt))
        lease.release()
    assert encoded[0] == sizes[0] > 200
    assert sum(encoded[1:]) / len(encoded[1:]) < 12


def test_the_second_request_encodes_only_new_tokens() -> None:
    completer = tiny_completer(SamplingConfig(max_steps=1), copy_drafts=False)
    at = SOURCE.index("    return found", 6000)
    for text, cursor in type_on(SOURCE, at, "    re"):
        result = completer.complete(InfillRequest(text, (Hole(cursor, cursor),), "python"))
        assert result.encoded_tokens == (0 if cursor > at else result.prompt_tokens)


def test_the_shipped_tokenizer_has_the_ids_of_the_training() -> None:
    names = ("<pad>", "<bos>", "<|null|>", "<|mask|>", "<|suffix|>", "<|prefix|>")
    assert POCKET.is_dir()
    assert [pocket().tokens.special(name) for name in names] == [0, 2, 3, 4, 6, 7]

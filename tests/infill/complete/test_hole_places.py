"""Positions of holes: in a line, between lines, at the ends of a file, several, longer than a canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from engine.config import SamplingConfig
from engine.errors import InputError
from infill.request import Hole, InfillRequest, Lines
from tests.cpu_time import takes_less
from tests.infill.fakes import (
    ScriptedDenoiser,
    filled,
    hole_ranges,
    pocket,
    request,
    scripted_completer,
    tiny_completer,
)

FUNCTION = "def add(one, other):\n    total = one + other\n    return total\n\n\nprint(add(1, 2))\n"


def fill(text: str, says: str | Sequence[str], **more: object) -> str:
    infill_request = request(text, **more)  # type: ignore[arg-type]
    return filled(infill_request, scripted_completer(says).complete(infill_request))


def test_within_a_line_only_the_rest_is_written() -> None:
    assert fill("x = [1, §, 3]\n", "2") == "x = [1, 2, 3]\n"
    assert fill("def f(§):\n    pass\n", "one, other") == "def f(one, other):\n    pass\n"


def test_the_typed_part_of_a_token_is_not_repeated() -> None:
    assert fill("def f(x):\n    ret§\n", "urn x") == "def f(x):\n    return x\n"
    assert fill("pri§(1)\n", "nt") == "print(1)\n"


def test_the_first_token_begins_with_the_typed_text() -> None:
    completer = scripted_completer("urn x")
    completer.complete(request("def f(x):\n    ret§\n"))
    assert isinstance(completer.denoiser, ScriptedDenoiser)
    (allowed,) = completer.denoiser.requests[0].canvas.allowed.values()
    tokens = pocket().tokens
    typed = tokens.encode("def f(x):\n    ret")[-1]
    assert typed in allowed and len(allowed) > 1
    assert all(tokens.bytes_of[token].startswith(tokens.bytes_of[typed]) for token in allowed.tolist())


def test_between_lines_whole_lines_are_written_with_indentation_and_line_end() -> None:
    text = FUNCTION.replace("    total = one + other\n", "§")
    assert fill(text, "    total = one + other") == FUNCTION


def test_a_replaced_line_keeps_its_line_end_even_before_a_blank_line() -> None:
    text = FUNCTION.replace("    return total\n", "«    return None\n»")
    assert fill(text, "    return total") == FUNCTION


def test_a_replaced_line_without_its_line_end_gets_none() -> None:
    text = FUNCTION.replace("    return total", "«    return None»")
    assert fill(text, "    return total") == FUNCTION


def test_the_line_break_of_an_empty_line_stays() -> None:
    assert fill("x = 1\n§\ny = x\n", "z = 2") == "x = 1\nz = 2\ny = x\n"


def test_no_final_newline_is_needed_or_added() -> None:
    assert fill("x = 1\ny = §", "x") == "x = 1\ny = x"
    assert fill("x = 1\n«y = 3»", "y = x") == "x = 1\ny = x"
    assert fill("x = 1\n§", "y = x") == "x = 1\ny = x\n"


def test_an_empty_file_gets_whole_lines() -> None:
    assert fill("§", "import os") == "import os\n"


def test_the_hole_may_be_at_either_end() -> None:
    assert fill("§y = x\n", "x = 1") == "x = 1\ny = x\n"
    assert fill("x = 1\nprint(x§", ")") == "x = 1\nprint(x)"


def test_tabs_stay_tabs() -> None:
    assert fill("func f() int {\n§}\n", "\treturn 1", language="go") == "func f() int {\n\treturn 1\n}\n"


def test_non_ascii_text_and_lone_surrogates_around_the_hole_stay() -> None:
    assert fill("größe = '日本 😀'\nb = §\n", "größe") == "größe = '日本 😀'\nb = größe\n"
    assert fill("a = '\ud800'\nb = §\n", "a") == "a = '\ud800'\nb = a\n"


def test_crlf_files_are_filled_with_crlf() -> None:
    text = "def f(x):\r\n    y = x\r\n§    return y\r\n"
    assert fill(text, "    y += 1") == "def f(x):\r\n    y = x\r\n    y += 1\r\n    return y\r\n"
    assert fill("x = 1\r\ny = §\r\n", "x") == "x = 1\r\ny = x\r\n"
    block = fill("def f(x):\r\n§z = 1\r\n", "    y = x\n    return y", lines="block")
    assert block == "def f(x):\r\n    y = x\r\n    return y\r\nz = 1\r\n"


def test_a_hole_between_carriage_return_and_line_feed_moves_before_both() -> None:
    infill_request = InfillRequest("x = \r\ny = x\r\n", (Hole(5, 5),), "python")
    result = scripted_completer("1").complete(infill_request)
    assert result.completions[0].hole == Hole(4, 4)
    assert filled(infill_request, result) == "x = 1\r\ny = x\r\n"


def test_code_that_looks_like_special_tokens_is_code() -> None:
    assert fill("a = '<|null|>'\nb = '<|mask|>' + §\n", "a") == "a = '<|null|>'\nb = '<|mask|>' + a\n"


def test_one_line_in_a_long_file_of_one_line_is_quick() -> None:
    text = "x = [" + "12, " * 25_000 + "13]"
    infill_request = InfillRequest(text, (Hole(50_005, 50_005),), "python")
    completer = scripted_completer("7, 8, ", copy_drafts=True)
    results = [completer.complete(infill_request)]

    def fill(attempt: int) -> None:
        at = 50_009 + 4 * attempt
        results.append(completer.complete(replace(infill_request, holes=(Hole(at, at),))))

    assert takes_less(3.0, fill)
    result = results[-1]
    assert result.prompt_tokens <= 320 and result.canvas <= 160
    assert result.completions[0].text == "7, 8, " and result.completions[0].shown


# line or block


@pytest.mark.parametrize(
    ("text", "lines", "expected_lines"),
    [
        ("def f(x):\n§\n", "auto", "    y = x\n    return y"),
        ("def f(x):\n§\n", "one", "    y = x"),
        ("x = 1\n§\ny = 2\n", "auto", "    y = x"),
        ("x = 1\n§\ny = 2\n", "block", "    y = x\n    return y"),
        ("def f(x):\n    a = 1\n«    b = 2\n    c = 3\n»    return a\n", "auto", "    y = x\n    return y\n"),
        ("def f(x):\n    a = 1\n«    b = 2\n»    return a\n", "auto", "    y = x\n"),
    ],
)
def test_the_syntax_chooses_line_or_block_unless_the_request_does(text: str, lines: Lines, expected_lines: str) -> None:
    completer = scripted_completer("    y = x\n    return y")
    completion = completer.complete(request(text, lines)).completions[0]
    assert completion.candidates[-1].text == expected_lines or completion.text == expected_lines
    assert isinstance(completer.denoiser, ScriptedDenoiser)
    slots = len(completer.denoiser.requests[0].canvas.hole_columns)
    assert slots == pocket().slots["\n" in expected_lines.rstrip("\n")]


# several holes


def test_several_holes_are_filled_in_one_canvas() -> None:
    infill_request = request("def add(§):\n    return one + §\n")
    completer = scripted_completer(["one, other", "other"])
    result = completer.complete(infill_request)
    assert filled(infill_request, result) == "def add(one, other):\n    return one + other\n"
    assert isinstance(completer.denoiser, ScriptedDenoiser) and len(completer.denoiser.requests) == 1
    assert result.hole == 64 and all(one.shown for one in result.completions)


def test_holes_may_be_given_in_any_order() -> None:
    infill_request = request("def add(§):\n    return one + §\n")
    backwards = replace(infill_request, holes=infill_request.holes[::-1])
    result = scripted_completer(["one, other", "other"]).complete(backwards)
    assert [one.hole for one in result.completions] == list(infill_request.holes)


def test_holes_far_apart_have_own_canvases_and_see_earlier_fillings() -> None:
    middle = "".join(f"value_{number} = {number}\n" for number in range(60))
    infill_request = request(f"first = §\n{middle}last = §\n")
    completer = scripted_completer("12", "first")
    result = completer.complete(infill_request)
    assert filled(infill_request, result) == f"first = 12\n{middle}last = first\n"
    assert isinstance(completer.denoiser, ScriptedDenoiser)
    assert [len(hole_ranges(one.canvas)) for one in completer.denoiser.requests] == [1, 1]
    assert [one.hole for one in result.completions] == list(infill_request.holes)
    assert result.steps == 2 and result.hole == 64 and result.timings_ms["total"] > 0


def test_holes_far_apart_in_a_crlf_file_get_crlf() -> None:
    middle = "".join(f"value_{number} = {number}\r\n" for number in range(60))
    infill_request = request(f"x = 1\r\n§{middle}y = 2\r\n§z = 3\r\n")
    result = scripted_completer("a = 12", "b = a").complete(infill_request)
    assert filled(infill_request, result) == f"x = 1\r\na = 12\r\n{middle}y = 2\r\nb = a\r\nz = 3\r\n"


def test_text_within_another_hole_is_not_context() -> None:
    for middle in ("", "".join(f"value_{number} = {number}\n" for number in range(60))):
        infill_request = request(f"first = «@@@»\n{middle}last = «@@@»\n")
        completer = scripted_completer(*(["12", "first"] if middle else [["12", "first"]]))
        result = completer.complete(infill_request)
        assert [one.reason for one in result.completions] == [None, None]
        assert isinstance(completer.denoiser, ScriptedDenoiser)
        shown = [
            pocket().tokens.decode([t for t in one.canvas.tokens.tolist() if t >= 0])
            + pocket().tokens.decode(one.prompt)
            for one in completer.denoiser.requests
        ]
        assert not any("@" in text for text in shown)


def test_a_hole_is_checked_with_the_fillings_above() -> None:
    text = "total = «@»\n«@\n»print(total)\n"
    result = scripted_completer(["1", "total = 1"]).complete(request(text))
    assert [one.shown for one in result.completions] == [True, False]
    assert result.completions[1].reason == "the completion repeats the line above"
    assert fill(text, ["1", "total += 1"]) == "total = 1\ntotal += 1\nprint(total)\n"


def test_a_hole_longer_than_a_canvas_is_filled_to_its_end() -> None:
    body = "".join(f"    value_{number} = {number}\n" for number in range(40)).rstrip("\n")
    infill_request = request("def f():\n§\n", "block")
    result = scripted_completer(body).complete(infill_request)
    assert filled(infill_request, result) == f"def f():\n{body}\n"
    assert result.canvas > pocket().max_canvas


def test_a_random_model_fills_beyond_one_canvas() -> None:
    result = tiny_completer(SamplingConfig(max_steps=1), copy_drafts=False).complete(request("def f():\n§\n", "block"))
    assert result.hole == 512 and result.canvas > 512 and result.steps > 4


@pytest.mark.parametrize("holes", [(), (Hole(3, 2),), (Hole(0, 99),), (Hole(-1, 0),), (Hole(0, 3), Hole(2, 4))])
def test_invalid_holes_are_refused(holes: tuple[Hole, ...]) -> None:
    with pytest.raises(InputError):
        scripted_completer("x").complete(InfillRequest("x = 1\n", holes))


def test_fewer_steps_than_one_are_refused() -> None:
    with pytest.raises(InputError, match="the minimum is 1"):
        scripted_completer("x").complete(request("x = §\n", steps=0))

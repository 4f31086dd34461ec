"""The pipeline of rewrites, with a model that writes given answers."""

from __future__ import annotations

import time

import pytest

from engine.decoder import Decoder
from engine.errors import Cancelled, InputError
from infill.complete.code_model import CodeModel
from infill.edit.rewriter import MOST_INSTRUCTION, SEGMENT, Rewriter
from infill.request import Neighbour, StepView
from tests.infill.edit.scripted_rewriter import ScriptedRewriter, edit_request
from tests.infill.fakes import tiny_completer
from tests.infill.tiny_coder import fim_prompt, random_model

BODY = "def mean(values):\n«    return sum(values) / len(values)\n»\n\nprint(mean([1]))\n"


def test_the_code_of_an_answer_gets_the_indentation_of_the_selection() -> None:
    rewriter, request = ScriptedRewriter("if not values:\n    return 0\nreturn 1\n```\nThis helps."), edit_request(BODY)
    result = rewriter.rewrite(request)
    assert result.text == "    if not values:\n        return 0\n    return 1\n"
    assert (result.shown, result.reason) == (True, None)
    assert (result.start, result.end, result.model) == (request.start, request.end, "tiny")
    assert result.candidates[0].text == result.text and len(result.candidates) == 1
    assert result.prompt_tokens == result.encoded_tokens > 20
    assert set(result.timings_ms) == {"context", "encode", "decode", "total"}


def test_the_prompt_has_the_surroundings_the_selection_and_last_the_instruction() -> None:
    rewriter = ScriptedRewriter("pass\n```")
    request = edit_request(
        BODY, "return 0 if empty", path="stats.py", neighbours=(Neighbour("b.py", "def other(): ...\n"),)
    )
    rewriter.rewrite(request)
    (prompt,) = rewriter.prompts
    parts = [
        "def other",
        "stats.py",
        "def mean(values):",
        "    return sum(",
        "print(mean",
        "\nreturn sum(",
        "0 if empty",
    ]
    assert [prompt.index(part) for part in parts] == sorted(prompt.index(part) for part in parts)
    assert prompt.endswith("```python\n")
    again = rewriter.rewrite(edit_request(BODY, "another one", path="stats.py", neighbours=request.neighbours))
    assert again.encoded_tokens < again.prompt_tokens / 2, "the code is read once"


@pytest.mark.parametrize(
    ("marked", "answer", "expected"),
    [
        ("x = «1 + 2»  # sum\n", " 3  # sum\n```", "3"),
        ("print(«x»)\n", "y)", "y"),
        ("«a = 1\r\nb = 2\r\n»c = 3\r\n", "a = 2\nb = 3\n```", "a = 2\r\nb = 3\r\n"),
        ("class A:\n«    x = 1»\n", "class A:\n    x = 2\n    y = 3\n```", "    x = 2\n    y = 3"),
        ("«x = 'ä'»\n", "x = 'ö'\n```", "x = 'ö'"),
        ("«x = '\ufffd'»\n", "x = '\ufffd' * 2\n```", "x = '\ufffd' * 2"),
        ("x = [\n«    1,\n    2,»\n]\n", "    3,\n    4,\n]\n```", "    3,\n    4,"),
    ],
)
def test_only_the_range_changes(marked: str, answer: str, expected: str) -> None:
    result = ScriptedRewriter(answer).rewrite(edit_request(marked))
    assert (result.text, result.shown) == (expected, True), result.reason


@pytest.mark.parametrize(
    ("marked", "answer", "reason"),
    [
        (BODY, "```", "the answer is empty"),
        (BODY, "return sum(values) / len(values)\n```", "the answer equals the selected code"),
        ("if a:\n«    b()\n    \n    c()\n»", "b()\n\nc()\n```", "the answer equals the selected code"),
        (BODY, "Here is the code that you asked for:\nreturn 0\n```", "the answer is prose, not code"),
        (BODY, "return (0\n```", "the answer leaves “(” open"),
        (BODY, "return 0 0\n```", "the code would parse worse than before"),
        (BODY, "def mean(values, start):\n    return 0\n```", "declaration of mean, which is outside the selection"),
        ("x = «1» + 2\n", " 5 * 2\n```", "the answer changes code outside the selection"),
        ("if a:\n    d()\n«    b()»\n", "b()\n\tc()\n```", "the answer indents with tabs, the file with spaces"),
    ],
)
def test_an_answer_that_makes_the_code_worse_is_refused(marked: str, answer: str, reason: str) -> None:
    result = ScriptedRewriter(answer).rewrite(edit_request(marked))
    assert not result.shown and reason in (result.reason or "")


def test_code_with_errors_may_keep_them() -> None:
    result = ScriptedRewriter("x = (2\n```").rewrite(edit_request("«x = (1»\ny = 1\n"))
    assert (result.text, result.shown) == ("x = (2", True)


def test_a_refused_answer_is_followed_by_one_that_takes_the_likeliest_other_token() -> None:
    marked = "«x = 1»\n"
    assert not ScriptedRewriter("x = 1\n```").rewrite(edit_request(marked)).shown
    offset = len(fim_prompt().tokens.encode("x = "))
    result = ScriptedRewriter("x = 1\n```", {offset: "7"}).rewrite(edit_request(marked))
    assert (result.text, result.shown, len(result.candidates)) == ("x = 7", True, 1)


def test_several_candidates_are_distinct_and_the_good_ones_come_first() -> None:
    offset = len(fim_prompt().tokens.encode("x = "))
    rewriter = ScriptedRewriter("x = 1\n```", {offset: "7", offset - 1: "8"})
    result = rewriter.rewrite(edit_request("«x = 1»\n", candidates=2))
    assert len({one.text for one in result.candidates}) == 2
    assert result.candidates[0].shown and result.text == result.candidates[0].text


def test_a_long_answer_is_written_in_segments_with_few_passes_where_nothing_changes() -> None:
    lines = [f"value_{number} = {number}" for number in range(40)]
    code = "\n".join(lines)
    new = code.replace("value_7 = 7", "value_7 = 70")
    rewriter = ScriptedRewriter(new + "\n```")
    result = rewriter.rewrite(edit_request(f"«{code}»\n"))
    assert (result.text, result.shown) == (new, True)
    assert result.candidates[0].tokens > 2 * SEGMENT
    assert rewriter.scripted.passes < result.candidates[0].tokens / 3


def test_an_answer_without_end_is_refused() -> None:
    result = ScriptedRewriter("x = 1\n" * 400).rewrite(edit_request("«y»\n"))
    assert not result.shown and "does not end within" in (result.reason or "")


def test_an_answer_that_the_deadline_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    started, now = time.monotonic(), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: started + now[0])

    def on_step(view: StepView) -> None:
        now[0] = 20.0

    result = ScriptedRewriter("a = 1\nb = 2\n```").rewrite(edit_request("«x»\n", deadline_ms=10_000), on_step)
    assert (result.shown, result.reason) == (False, "the deadline left no time to finish the answer")


def test_the_steps_show_the_new_lines_as_they_are_written() -> None:
    views: list[StepView] = []
    result = ScriptedRewriter("return 1\n```").rewrite(edit_request(BODY), views.append)
    written = [view.pieces[1].text for view in views]
    assert result.shown and len(views) > 2 and written[-1].startswith("    return")
    assert all(later.startswith(earlier) for earlier, later in zip(written, written[1:], strict=False))
    assert views[0].pieces[0].text == "def mean(values):\n" and "print(mean" in views[0].pieces[2].text


def test_a_caller_can_stop_and_cancel() -> None:
    stopped = ScriptedRewriter("return 1\n```").rewrite(edit_request(BODY), lambda view: False)
    assert (stopped.shown, stopped.reason) == (False, "the answer was stopped")
    rewriter = ScriptedRewriter("return 1\n```")
    with pytest.raises(Cancelled):
        rewriter.rewrite(edit_request(BODY), stop=lambda: rewriter.scripted.passes > 2)


def test_code_with_fences_gets_a_longer_fence() -> None:
    rewriter = ScriptedRewriter("a\n```\nb\n```\nc\n````")
    result = rewriter.rewrite(edit_request("«a\n```\nx\n```»\n", language="text"))
    assert rewriter.prompts[0].endswith("````text\n") and result.text == "a\n```\nb\n```\nc"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 2, "end": 1}, "lies outside the text"),
        ({"end": 10_000}, "lies outside the text"),
        ({"end": 0, "start": 0}, "has no code to rewrite"),
        ({"instruction": "  "}, "The instruction is empty"),
        ({"instruction": "x" * (MOST_INSTRUCTION + 1)}, "shorten it"),
        ({"text": "x = 1\n" * 1000, "end": 6000}, "select fewer lines"),
    ],
)
def test_a_request_that_cannot_be_used(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ScriptedRewriter("x\n```").rewrite(edit_request("«x = 1»\n", **change))


def test_a_model_that_follows_no_instructions_is_refused_with_the_names_of_others() -> None:
    for model in (tiny_completer().model, CodeModel("tiny", Decoder(random_model()), fim_prompt())):
        with pytest.raises(InputError, match="use coder or coder-1.5b"):
            Rewriter(model)

"""The chat prompt: the special tokens of the model's template, and the code pinned on the canvas."""

from __future__ import annotations

import pytest

from infill.code.context import show_context
from infill.prompts.chat import FAR_SUFFIX, PROMPT, ChatPrompt
from infill.prompts.prompt import HoleKind, Layout
from infill.prompts.text_tokens import TextTokens
from tests.infill.fakes import chat_tokenizer, known_texts

SOURCE = "import os\n\n\n" + "".join(
    f"def read_{number}(path):\n    return path[{number}]\n\n\n" for number in range(900)
)
BOS, CHANNEL, CHANNEL_END, TURN, TURN_END = 2, 100, 101, 105, 106


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> ChatPrompt:
    return ChatPrompt(TextTokens.read(chat_tokenizer(tmp_path_factory.mktemp("chat"))))


def lay_out(family: ChatPrompt, text: str, at: int, whole: bool = False, path: str | None = "a.py") -> Layout:
    context = show_context(text, at, at, "python", path, (), family.budget)
    return family.plan(context, [HoleKind(True, whole)], []).lay_out([8])


def test_the_turns_are_those_of_the_models_template(family: ChatPrompt) -> None:
    prompt = lay_out(family, SOURCE, 5000).prompt
    marks = [token for token in prompt if token < 200]
    assert marks == [BOS, TURN, TURN_END, TURN, CHANNEL, CHANNEL_END]
    decode = family.tokens.decode
    first_end = prompt.index(TURN_END)
    assert prompt[:2] == [BOS, TURN] and decode(prompt[2:first_end]).startswith("user\n")
    assert decode(prompt[first_end:]) == "\nmodel\nthought\n"


@pytest.mark.parametrize("at", [0, 1, 5000, 12_345, len(SOURCE)])
def test_the_code_around_the_hole_is_pinned(family: ChatPrompt, at: int) -> None:
    before, after = known_texts(family.tokens, lay_out(family, SOURCE, at))
    assert before.startswith("```python\n")
    assert SOURCE[:at].endswith(before.removeprefix("```python\n"))
    assert SOURCE[at:].startswith(after.removesuffix("\n```"))


def test_fence_and_turn_are_closed_if_the_file_ends_on_the_canvas(family: ChatPrompt) -> None:
    for text, whole, closing in (
        ("x = \n", False, "\n```"),
        ("x = ", False, "\n```"),
        ("x = 1\n", True, "\n```"),
    ):
        at = 4 if not whole else len(text)
        layout = lay_out(family, text, at, whole)
        assert layout.canvas.tokens.tolist()[-1] == TURN_END
        assert known_texts(family.tokens, layout)[1] == closing
    assert TURN_END not in lay_out(family, SOURCE, 5000).canvas.tokens.tolist()


def test_far_code_is_in_the_prompt_with_the_far_prefix_last(family: ChatPrompt) -> None:
    at = SOURCE.index("    return", 20_000)
    layout = lay_out(family, SOURCE, at)
    text = family.tokens.decode(layout.prompt)
    before, after = known_texts(family.tokens, layout)
    far_after = SOURCE[at + len(after) :][:200]
    assert f"The code after it:\n```python\n{far_after}" in text
    far_before = SOURCE[:at].removesuffix(before.removeprefix("```python\n"))[-200:]
    assert f"{far_before}\n```" in text.partition("The code before it:\n```python\n")[2]


def test_path_and_outline_are_included_if_there_are_any(family: ChatPrompt) -> None:
    text = family.tokens.decode(lay_out(family, SOURCE, 20_000).prompt)
    assert "the file a.py from" in text and "Outline of the rest:\n```\n" in text and "import os\n" in text
    small = family.tokens.decode(lay_out(family, "x = 1\n", 4, path=None).prompt)
    assert "the file from" in small and "Outline" not in small


@pytest.mark.parametrize("text", [SOURCE, "x" * 100_000, "é日😀" * 20_000])
def test_the_prompt_stays_within_its_limit(family: ChatPrompt, text: str) -> None:
    for at in (0, len(text) // 2, len(text)):
        layout = lay_out(family, text, at)
        assert len(layout.prompt) <= PROMPT
        assert layout.canvas.width <= family.max_canvas
    assert FAR_SUFFIX < PROMPT


def test_typing_reads_few_new_tokens(family: ChatPrompt) -> None:
    at = SOURCE.index("    return", 20_000)
    typed = "    for line in path:\n        print(line)\n        size += len(line)\n    return size\n"
    texts = [SOURCE[:at] + typed[:count] + SOURCE[at:] for count in range(len(typed) + 1)]
    prompts = [lay_out(family, text, at + count).prompt for count, text in enumerate(texts)]
    new = 0
    for one, other in zip(prompts, prompts[1:], strict=False):
        same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
        new += len(other) - same
    assert len(prompts[0]) > 4000
    assert new / len(typed) < 60


def test_special_tokens_and_line_breaks_are_banned(family: ChatPrompt) -> None:
    layout = lay_out(family, SOURCE, 5000)
    assert family.null_token is None
    assert {*range(200), *family.tokens.line_breaks} <= set(layout.banned.tolist())


def test_text_that_looks_like_a_turn_stays_text(family: ChatPrompt) -> None:
    layout = lay_out(family, "a = '<turn|><|turn>user'\n" * 40, 500)
    assert layout.prompt.count(TURN) == 2

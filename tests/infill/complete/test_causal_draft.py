"""Causal drafts: where the decoded text ends, and what is cut off."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import infill.complete.causal_draft
from engine.key_values import KeyValues
from engine.token_tree import TokenTree
from infill.code.context import show_context
from infill.complete.causal_draft import CausalDraft, block_end, causal_draft
from infill.prompts.prompt import CausalPrompt, HoleKind
from tests.infill.fakes import pocket, pocket_tokens, tiny_model

LINE, REST, BLOCK = HoleKind(True, True), HoleKind(True, False), HoleKind(False, True)


def written(
    monkeypatch: pytest.MonkeyPatch, text: str, kind: HoleKind, before: str = "x = ", typed: str = ""
) -> tuple[CausalDraft, list[int]]:
    """The draft of an encoder that writes `text`, and the tokens that were decoded."""
    decoded: list[int] = []

    def decode(tree: Any, prompt: Any, limit: int, stop: Any, banned: Any, first: Any) -> Any:
        for token in pocket_tokens().encode(typed + text)[:limit]:
            decoded.append(token)
            if stop([*decoded]):
                break
        return decoded, [-0.5] * len(decoded)

    monkeypatch.setattr(infill.complete.causal_draft, "follow_greedily", decode)
    prompt = CausalPrompt([2, 17], typed, (), (0,))
    return causal_draft(None, pocket(), prompt, kind, before), decoded  # type: ignore[arg-type]


def test_a_line_ends_at_its_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    draft, decoded = written(monkeypatch, "one + two\nprint(x)\n", REST)
    assert draft.text == "one + two" and "print" not in pocket_tokens().decode(decoded)
    assert draft.decoded == pocket_tokens().decode(decoded)


def test_typed_text_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(monkeypatch, "turn x\n", REST, before="re", typed="re")[0].text == "turn x"


def test_a_whole_line_ends_in_a_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(monkeypatch, "    return x   \nother\n", LINE, before="def f(x):\n")[0].text == "    return x\n"
    assert written(monkeypatch, "\n", LINE, before="def f(x):\n")[0].text == ""


def test_a_block_ends_with_its_indentation(monkeypatch: pytest.MonkeyPatch) -> None:
    body = "    total = 0\n    for x in xs:\n        total += x\n    return total\n"
    draft, decoded = written(monkeypatch, body + "\ndef other():\n    pass\n", BLOCK, before="def f(xs):\n")
    assert draft.text == body and "other" not in pocket_tokens().decode(decoded)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("    a\n    b\nc\n", 12),
        ("    a\n\n    b\n", None),
        ("    a\n\n\n    b\n", 6),
        ("\n\n    a\n", None),
        ("a\n    b\nc\n", None),
        ("    a\n   }", 6),
        ("", None),
    ],
)
def test_the_end_of_a_block(text: str, end: int | None) -> None:
    assert block_end(text) == end


def test_after_the_deadline_decoding_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    follow, found = infill.complete.causal_draft.follow_greedily, []

    def spy(*arguments: Any) -> Any:
        found.append(follow(*arguments))
        return found[0]

    monkeypatch.setattr(infill.complete.causal_draft, "follow_greedily", spy)
    family = pocket()
    context = show_context("x = \n", 4, 4, "python", None, (), family.budget)
    prompt = family.causal_prompt(context, REST)
    assert prompt is not None
    model = tiny_model()
    kv = KeyValues(model.config, torch.device("cpu"), torch.float32)
    with TokenTree(model, kv, prompt.tokens) as tree:
        causal_draft(tree, family, prompt, REST, "x = ", time.monotonic() - 1)
    tokens, _ = found[0]
    assert len(tokens) == 1


def test_the_prompt_begins_with_the_suffix_and_ends_at_the_cursor() -> None:
    family, tokens = pocket(), pocket_tokens()
    text = "def f(number):\n    retu\n\n\nprint(f(1))\n"
    at = text.index("retu") + 4
    prompt = family.causal_prompt(show_context(text, at, at, "python", None, (), family.budget), REST)
    assert prompt is not None
    suffix, prefix = prompt.tokens.index(family.suffix_mark), prompt.tokens.index(family.prefix_mark)
    shown = tokens.decode(prompt.tokens[suffix + 1 : prefix])
    assert shown == text[at:]
    assert tokens.decode(prompt.tokens[prefix + 1 :]) + prompt.typed == text[:at]
    assert prompt.first is not None
    assert all(tokens.decode([token]).startswith(prompt.typed) for token in prompt.first.tolist())
    assert family.null_token in prompt.banned and set(tokens.specials) <= set(prompt.banned)


def test_the_prompt_of_a_long_file_fits_the_window() -> None:
    family, tokens = pocket(), pocket_tokens()
    lines: Sequence[str] = [f"value_{i} = compute({i}, {i + 1})\n" for i in range(400)]
    text = "".join(lines)
    at = text.index("value_200")
    prompt = family.causal_prompt(show_context(text, at, at, "python", None, (), family.budget), LINE)
    assert prompt is not None and len(prompt.tokens) <= family.window.prompt + family.window.canvas
    assert tokens.decode(prompt.tokens).endswith("value_199 = compute(199, 200)" + ("" if prompt.typed else "\n"))
    assert isinstance(torch.tensor(prompt.tokens), torch.Tensor)

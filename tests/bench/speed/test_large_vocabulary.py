"""With 262,144 tokens a request encodes its text once, and its layouts share what depends on the vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from bench.speed.large_vocabulary import HOLE, SPACED, VOCAB, large_tokenizer, measure
from engine.canvas_run import DenoiseRequest
from engine.config import SamplingConfig
from engine.denoiser import Denoiser
from infill.code.context import show_context
from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.prompts.chat import ChatPrompt
from infill.prompts.text_tokens import TextTokens
from infill.settings import Settings
from tests.infill.fakes import request, tiny_model

pytestmark = pytest.mark.slow
TWO_STEPS = SamplingConfig(max_steps=2, entropy_bound=20.0, token_choice="argmax")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return large_tokenizer()


def test_the_tokenizer_has_the_size_of_gemmas(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == VOCAB
    tokens = TextTokens(tokenizer)
    assert len(tokens.starting_with(" ")) == pytest.approx(SPACED, rel=0.001)
    assert tokens.decode(tokens.encode("    a = é\n")) == "    a = é\n"


def test_every_key_is_measured(tokenizer: Tokenizer) -> None:
    times = measure(tokenizer, "x = ", lines=4)
    assert len(times.requests) == 4 and max(times.choices) > 130_000
    assert all(time >= 0 for time in (times.tables, *times.requests))


def test_the_layouts_of_a_request_share_its_choices_and_its_bias(tokenizer: Tokenizer) -> None:
    family, denoiser = ChatPrompt(TextTokens(tokenizer)), Denoiser(tiny_model(vocab=VOCAB))
    shown = show_context("x = \n", 4, 4, "python", None, (), family.budget)
    plan = family.plan(shown, [HOLE], [])
    layouts = [plan.lay_out([length]) for length in (4, 32, 128)]
    choices = [next(iter(layout.canvas.allowed.values())) for layout in layouts]
    assert len(choices[0]) > 130_000 and all(one is choices[0] for one in choices)
    runs = [
        denoiser.start(DenoiseRequest(layout.prompt[:4], layout.canvas, TWO_STEPS, banned=layout.banned))
        for layout in layouts
    ]
    biases = [run.bias for run in runs if run.bias is not None]
    assert len(biases) == 3 and all(bias.values is biases[0].values for bias in biases)
    assert biases[0].values.shape == (2, VOCAB)
    for layout, bias in zip(layouts, biases, strict=True):
        (column,) = layout.canvas.allowed
        first = layout.canvas.hole_columns.tolist().index(column)
        assert bias.rows.tolist() == [int(hole == first) for hole in range(len(bias.rows))]
    allowed = (biases[0].values[1] == 0).nonzero().squeeze(1)
    assert torch.equal(allowed, choices[0].sort().values)
    for run in runs:
        denoiser.close(run)


def test_a_whole_completion_encodes_each_text_once(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = TextTokens(tokenizer)
    family, encoded = ChatPrompt(tokens), list[str]()
    encode = tokens.encode

    def counting(text: str) -> list[int]:
        encoded.append(text)
        return encode(text)

    monkeypatch.setattr(tokens, "encode", counting)
    settings: dict[str, Any] = {"copy_drafts": False, "causal_draft": False}
    model = LoadedModel("large", Denoiser(tiny_model(vocab=VOCAB)), family, TWO_STEPS)
    Completer(model, Settings(**settings)).complete(request("def f(a):\n    x = §\n    return x\n", lines="one"))
    assert encoded.count("def f(a):\n    x = ") == 1 and encoded.count("\n    return x\n") == 1

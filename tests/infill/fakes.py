"""Models for tests, one tiny with random weights and one that writes given texts, and requests from marked texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from engine.canvas import Canvas
from engine.config import ModelConfig, SamplingConfig
from engine.denoiser import Denoiser, DenoiseRequest, DenoiseResult, StepCallback, Timings
from engine.models.diffusion_gemma import DiffusionGemma
from infill.cli.text_edits import apply
from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.prompts.pocket import PocketPrompt
from infill.prompts.prompt import Layout
from infill.prompts.text_tokens import TextTokens
from infill.request import Hole, InfillRequest, InfillResult, Lines
from infill.settings import Settings

POCKET = Path(__file__).parents[2] / "infill" / "models" / "pocket"
NULL, MASK = 3, 4
FEW_STEPS = SamplingConfig(max_steps=3, entropy_bound=20.0, token_choice="argmax")

Script = Callable[[int], Sequence[str]]


@cache
def pocket_tokens() -> TextTokens:
    return TextTokens.read(POCKET / "tokenizer.json")


@cache
def pocket() -> PocketPrompt:
    return PocketPrompt(pocket_tokens())


def tiny_config(vocab: int = 8192) -> dict[str, Any]:
    """The config.json of `tiny_model`."""
    text = {
        "vocab_size": vocab,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "global_head_dim": 8,
        "num_global_key_value_heads": 1,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_experts": 1,
        "top_k_experts": 1,
        "moe_intermediate_size": 8,
        "max_position_embeddings": 8192,
    }
    noise = {"kind": "hybrid", "mask_token_id": MASK, "uniform_share": 0.1}
    config = {"model_type": "diffusion_gemma", "text_config": text, "canvas_length": 128}
    return {**config, "gesso": {"family": "pocket", "noise": noise}}


@cache
def tiny_model(seed: int = 0, vocab: int = 8192) -> DiffusionGemma:
    """Two layers with random weights and the noise of the pocket model."""
    model = DiffusionGemma(ModelConfig.from_json(tiny_config(vocab)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(generator=generator)
                parameter.mul_(parameter.shape[-1] ** -0.5)
    return model.eval().requires_grad_(False)


def tiny_completer(sampling: SamplingConfig = FEW_STEPS, **settings: Any) -> Completer:
    """The pipeline with a model of random weights."""
    return _completer(Denoiser(tiny_model()), sampling, settings)


def load_completer(**settings: Any) -> Completer:
    """The pipeline with a model loaded from disk, with the same settings for both."""
    return Completer(LoadedModel.load(Settings(**settings)), Settings(**settings))


def _completer(denoiser: Denoiser, sampling: SamplingConfig, settings: dict[str, Any]) -> Completer:
    chosen = Settings(**settings)
    return Completer(LoadedModel(chosen.model, denoiser, pocket(), sampling), chosen)


class ScriptedDenoiser(Denoiser):
    """Fills the n-th canvas (from 0) with the texts script(n): per hole its typed text, the text and null slots.

    A text that is too long continues in the next canvas if that continues this one, as blocks of a canvas do. Records
    the requests.
    """

    def __init__(self, script: Script, confidence: float = 0.9, tokens: TextTokens | None = None) -> None:
        super().__init__(tiny_model())
        self.script, self.confidence = script, confidence
        self.text_tokens = tokens or pocket_tokens()
        self.requests: list[DenoiseRequest] = []
        self.written: list[int] = []
        self.rest: list[int] = []

    def run(self, requests: Sequence[DenoiseRequest], on_step: StepCallback | None = None) -> list[DenoiseResult]:
        self.timings = Timings()
        return [self._result(request) for request in requests]

    def _result(self, request: DenoiseRequest) -> DenoiseResult:
        tokens = request.canvas.tokens.clone()
        holes = hole_ranges(request.canvas)
        continues = list(request.prompt) == self.written and bool(self.requests)
        texts = [""] if continues else self.script(len(self.requests))
        self.requests.append(request)
        assert len(texts) == len(holes), f"the script has {len(texts)} texts for {len(holes)} holes"
        for text, (start, stop) in zip(texts, holes, strict=True):
            allowed = request.canvas.allowed.get(start)
            typed = "" if allowed is None else self._typed(allowed.tolist())
            filling = self.rest if continues else self.text_tokens.encode(typed + text)
            assert allowed is None or filling[0] in allowed.tolist(), f"{text!r} is not allowed here"
            filling, self.rest = filling[: stop - start], filling[stop - start :]
            tokens[start:stop] = torch.tensor(filling + [NULL] * (stop - start - len(filling)))
        self.written = [*request.prompt, *tokens.tolist()]
        columns = request.canvas.hole_columns
        likelihood = torch.full((len(columns),), self.confidence).log()
        return DenoiseResult(
            tokens, columns, likelihood, -likelihood, 1, "stable", len(request.prompt), len(request.prompt)
        )

    def _typed(self, allowed: list[int]) -> str:
        return self.text_tokens.decode([min(allowed, key=lambda token: len(self.text_tokens.bytes_of[token]))])


def scripted_completer(*texts: str | Sequence[str], confidence: float = 0.9, **settings: Any) -> Completer:
    """Fills the n-th canvas with texts[n] (a text, or one per hole), and later canvases with the last one."""

    def script(number: int) -> Sequence[str]:
        filling = texts[min(number, len(texts) - 1)]
        return [filling] if isinstance(filling, str) else filling

    settings = {"copy_drafts": False, "causal_draft": False, **settings}
    return _completer(ScriptedDenoiser(script, confidence), FEW_STEPS, settings)


def hole_ranges(canvas: Canvas) -> list[tuple[int, int]]:
    """Columns [start, stop) of each hole: a run of unpinned columns, where typed text begins a new hole."""
    ranges: list[tuple[int, int]] = []
    for column in canvas.hole_columns.tolist():
        if ranges and ranges[-1][1] == column and column not in canvas.allowed:
            ranges[-1] = (ranges[-1][0], column + 1)
        else:
            ranges.append((column, column + 1))
    return ranges


def known_texts(tokens: TextTokens, layout: Layout) -> list[str]:
    """The pinned texts before, between and after the holes, including typed text moved into a hole."""
    ids, parts, at = layout.canvas.tokens.tolist(), [], 0
    for hole in layout.holes:
        parts.append(tokens.decode(ids[at : hole.start]) + hole.healed)
        at = hole.stop
    return [*parts, tokens.decode(ids[at:])]


def chat_tokenizer(folder: Path) -> Path:
    """A tokenizer.json with the special tokens of the released model at their ids, and bytes from 200 on."""
    names = {0: "<pad>", 1: "<eos>", 2: "<bos>", 98: "<|think|>", 100: "<|channel>", 101: "<channel|>"}
    names |= {105: "<|turn>", 106: "<turn|>"}
    vocab = {names.get(index, f"<unused{index}>"): index for index in range(200)}
    vocab |= {piece: 200 + index for index, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("Ċ", "Ċ"), ("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("r", "e"), ("re", "t")]
    for first, second in merges:
        vocab[first + second] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [name for name, index in sorted(vocab.items(), key=lambda entry: entry[1]) if index < 200]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def request(text: str, lines: Lines = "auto", language: str | None = "python", **more: object) -> InfillRequest:
    """§ marks an empty hole, «text» a hole that replaces the text."""
    holes, plain, opened = [], "", 0
    for character in text:
        if character == "§":
            holes.append(Hole(len(plain), len(plain)))
        elif character == "«":
            opened = len(plain)
        elif character == "»":
            holes.append(Hole(opened, len(plain)))
        else:
            plain += character
    return replace(InfillRequest(plain, tuple(holes), language, lines=lines), **more)  # type: ignore[arg-type]


def filled(infill_request: InfillRequest, result: InfillResult) -> str:
    """The text with all holes filled."""
    return apply(infill_request.text, [(one.hole, one.text) for one in result.completions])

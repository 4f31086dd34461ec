"""A rewriter whose model writes given texts, and requests from marked texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.decoder import Decoder
from engine.errors import Stop
from engine.memory import Masks, Memory
from infill.complete.code_model import CodeModel
from infill.edit.rewriter import Rewriter, _Task
from infill.edit_request import EditRequest
from tests.infill.tiny_coder import coder_tokens, fim_prompt, random_model

SURE, UNSURE = 20.0, 18.0  # logits of the likeliest and of the second token


class ScriptedModel:
    """Writes `script` after the first `start` positions, whatever came before; `doubts`: second choices by the offset
    in the script, in tokens. The keys and values are those of a random model."""

    def __init__(self, script: str, doubts: Mapping[int, str]) -> None:
        tokens = coder_tokens()
        self.inner, self.start = random_model(), 0
        self.script = [*tokens.encode(script), tokens.special("<|im_end|>")]
        self.doubts = {offset: tokens.encode(text)[0] for offset, text in doubts.items()}
        self.passes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def encode(
        self, tokens: Tensor, positions: Tensor, masks: Masks, memory: Memory, keys_only: bool = False
    ) -> Tensor:
        self.inner.encode(tokens, positions, masks, memory)
        self.passes += 1
        return positions[..., None]

    def logits(self, hidden: Tensor) -> Tensor:
        found = torch.zeros(len(hidden), len(coder_tokens().bytes_of) + 5)
        for row, position in zip(found, hidden[:, 0].tolist(), strict=True):
            offset = max(0, position + 1 - self.start)
            row[self.script[min(offset, len(self.script) - 1)]] = SURE
            if offset in self.doubts:
                row[self.doubts[offset]] = UNSURE
        return found


class ScriptedRewriter(Rewriter):
    """Records the prompts."""

    def __init__(self, script: str, doubts: Mapping[int, str] | None = None) -> None:
        self.scripted = ScriptedModel(script, doubts or {})
        decoder = Decoder(self.scripted)  # type: ignore[arg-type]
        super().__init__(CodeModel("tiny", decoder, fim_prompt(), has_chat=True))
        self.prompts: list[str] = []

    def _task(self, request: EditRequest, stop: Stop | None) -> _Task:
        task = super()._task(request, stop)
        self.scripted.start = len(task.edit.tokens)
        self.prompts.append(coder_tokens().decode(task.edit.tokens))
        return task


def edit_request(
    marked: str, instruction: str = "change it", language: str | None = "python", **more: Any
) -> EditRequest:
    """«text» marks the range."""
    start, end = marked.index("«"), marked.index("»") - 1
    text = marked.replace("«", "").replace("»", "")
    return replace(EditRequest(text, start, end, instruction, language), **more)

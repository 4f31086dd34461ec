"""Denoises a canvas that is too wide for one pass block by block: a finished block joins the prompt of the next.

A block does not see known tokens in the blocks after it. Must not know text.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from engine.canvas import Canvas
from engine.canvas_run import (
    CanvasDenoiser,
    CanvasRun,
    DenoiseRequest,
    DenoiseResult,
    Finish,
    StepCallback,
    Timings,
)
from engine.errors import InputError

FROM_BEST_TO_WORST: tuple[Finish, ...] = ("stable", "steps", "deadline", "cancelled")


@dataclass(frozen=True)
class BlocksResult(DenoiseResult):
    """The result of a whole canvas: its first `filled` columns are done, the others were not reached.

    A hole that was not reached holds its draft, or -1 as on a canvas, with the log probability and the entropy of a
    uniform guess. steps and encoded_tokens are sums over the blocks, finish is their worst.
    """

    filled: int = field(kw_only=True)


def denoise_in_blocks(
    denoiser: CanvasDenoiser,
    request: DenoiseRequest,
    width: int | None = None,
    on_step: StepCallback | None = None,
) -> BlocksResult:
    """Cuts the canvas into blocks of `width` columns (default: the model's canvas length) and fills them in order.

    Block n is seeded with seed + n, so a canvas of one block gives the same result as `Denoiser.run`. A block without a
    hole is only encoded. The deadline and `on_step` returning False apply to the whole canvas; at least one step is
    made. `on_step` gets the run of the current block, whose first column on the whole canvas is len(run.request.prompt)
    - len(request.prompt). Raises InputError if prompt and canvas are too long.
    """
    config, canvas = denoiser.config, request.canvas
    width = config.canvas_length if width is None else width
    if width < 1:
        raise InputError(f"A block needs at least one column, not {width}.")
    length = len(request.prompt) + canvas.width
    if length > config.max_positions:
        raise InputError(
            f"Prompt and canvas have {length} tokens, but the model takes {config.max_positions}; shorten the prompt."
        )
    stopped = False

    def watch(runs: Sequence[CanvasRun]) -> bool | None:
        nonlocal stopped
        stopped = on_step is not None and on_step(runs) is False
        return not stopped

    tokens = canvas.tokens.cpu().clone()
    log_probabilities = torch.full((canvas.width,), -math.log(config.vocab_size))
    entropy = -log_probabilities
    timings = Timings()
    steps, encoded, finish = 0, 0, FROM_BEST_TO_WORST[0]
    starts = [s for s in range(0, canvas.width, width) if not canvas.pinned[s : s + width].all()]
    ends = [*starts[1:], canvas.width]
    filled = 0
    for start, filled in zip(starts, ends, strict=True):
        block = replace(
            request,
            prompt=[*request.prompt, *tokens[:start].tolist()],
            canvas=_cut(canvas, start, start + width),
            seed=request.seed + start // width,
        )
        result = denoiser.run([block], watch)[0]
        columns = start + result.columns
        tokens[columns] = result.tokens[result.columns]
        log_probabilities[columns], entropy[columns] = result.log_probabilities, result.entropy
        steps, encoded = steps + result.steps, encoded + result.encoded_tokens
        timings.encode += denoiser.timings.encode
        timings.denoise += denoiser.timings.denoise
        finish = _worse(finish, result.finish)
        if filled == canvas.width:
            break
        if stopped:
            finish = "cancelled"
        elif request.deadline is not None and time.monotonic() >= request.deadline:
            finish = _worse(finish, "deadline")
        if finish in ("deadline", "cancelled"):
            break
    denoiser.timings = timings
    holes = canvas.hole_columns.cpu()
    return BlocksResult(
        tokens=tokens,
        columns=holes,
        log_probabilities=log_probabilities[holes],
        entropy=entropy[holes],
        steps=steps,
        finish=finish,
        prompt_tokens=len(request.prompt),
        encoded_tokens=encoded,
        filled=filled,
    )


def _cut(canvas: Canvas, start: int, end: int) -> Canvas:
    """Columns [start, end) as a separate canvas."""
    allowed = {column - start: ids for column, ids in canvas.allowed.items() if start <= column < end}
    return Canvas(canvas.tokens[start:end], canvas.pinned[start:end], allowed)


def _worse(first: Finish, second: Finish) -> Finish:
    return max(first, second, key=FROM_BEST_TO_WORST.index)

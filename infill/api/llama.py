"""llama.cpp's `POST /infill`, as llama.vim and llama.vscode send it.

Sources: llama.cpp's server README, llama.vim and llama.vscode. Ignores the options of autoregressive samplers (`top_k`,
`samplers`, …). Must not know other APIs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from infill.api.http import Stop, complete, cut, event, read, stream
from infill.api.values import Name, Path, Text, readable
from infill.engine_protocol import Engine, EngineRequest
from infill.request import Hole, InfillRequest, InfillResult, Neighbour
from infill.validation import Limits

Tokens = Annotated[int, Limits(-2, 100_000)]
Milliseconds = Annotated[float, Limits(0, 10_000_000)]


@dataclass(frozen=True)
class ExtraInput:
    """Another file."""

    filename: Path = ""
    text: Text = ""


@dataclass(frozen=True)
class LlamaBody:
    """The body of `/infill`. prompt: the text between `input_prefix` and the cursor. n_predict: below 0, no limit."""

    input_prefix: Text = ""
    input_suffix: Text = ""
    input_extra: Annotated[tuple[ExtraInput, ...], Limits(most=256)] = ()
    prompt: Text = ""
    n_predict: Tokens = -1
    seed: Annotated[int, Limits(-1, 2**63 - 1)] = 0
    stop: Annotated[tuple[Stop, ...], Limits(most=256)] = ()
    stream: bool = False
    t_max_prompt_ms: Milliseconds = 0
    t_max_predict_ms: Milliseconds = 0
    language: Name | None = None
    path: Path | None = None
    response_fields: Annotated[tuple[Annotated[str, Limits(most=256)], ...], Limits(most=256)] = ()


async def infill(request: Request, engine: Engine) -> Response:
    """Answers one request; one with `n_predict` 0, which warms llama.cpp's cache, without the model."""
    body = await read(request, LlamaBody, "input_extra")
    engine_request = EngineRequest(await asyncio.to_thread(_request, body), any_model=True)
    engine.check(engine_request)
    if body.n_predict == 0:
        return JSONResponse(_chosen(_answer(engine, "", "limit", None), body.response_fields))
    result = await complete(request, engine, engine_request)
    best = result.completions[0]
    most = body.n_predict if body.n_predict > 0 else None
    text, finish = cut(engine, best.text if best.shown else "", body.stop, most)
    answer = _answer(engine, text, "limit" if finish == "length" else "eos", result)
    if body.stream:
        return stream(_chunks(text, answer))
    return JSONResponse(_chosen(answer, body.response_fields))


def _request(body: LlamaBody) -> InfillRequest:
    before = body.input_prefix + body.prompt
    limits = (body.t_max_prompt_ms, body.t_max_predict_ms)
    return InfillRequest(
        before + body.input_suffix,
        (Hole(len(before), len(before)),),
        language=body.language,
        path=body.path,
        seed=max(0, body.seed) % 2**31,
        deadline_ms=sum(limits) if all(limits) else None,
        neighbours=readable(Neighbour(one.filename, one.text) for one in body.input_extra),
    )


def _answer(engine: Engine, text: str, stop_type: str, result: InfillResult | None) -> dict[str, Any]:
    spent_ms = result.timings_ms if result else {}  # a backend may have other stages
    read_ms = spent_ms.get("encode", 0.0)
    wrote_ms = max(0.0, spent_ms.get("total", 0.0) - read_ms)
    read_n, wrote_n = (result.encoded_tokens, len(engine.tokens(text))) if result else (0, 0)
    best = result.completions[0] if result else None
    return {
        "index": 0,
        "content": text,
        "stop": True,
        "stop_type": stop_type,
        "stopping_word": "",
        "model": engine.state.model,
        "tokens_predicted": wrote_n,
        "tokens_evaluated": result.tokens_given if result else 0,
        "tokens_cached": max(0, result.prompt_tokens - read_n) if result else 0,
        "truncated": False,
        "timings": _speed("prompt", read_n, read_ms) | _speed("predicted", wrote_n, wrote_ms),
        "gesso": {"shown": bool(best and best.shown), "reason": best.reason if best else None},
    }


def _speed(name: str, count: int, spent_ms: float) -> dict[str, float]:
    return {
        f"{name}_n": count,
        f"{name}_ms": spent_ms,
        f"{name}_per_token_ms": spent_ms / max(count, 1),
        f"{name}_per_second": 1000 * count / spent_ms if spent_ms else 0.0,
    }


def _chosen(answer: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The fields in `names`, nested ones by their path ("timings/prompt_n"); without names, all."""
    if not names:
        return answer
    chosen: dict[str, Any] = {}
    for name in names:
        value: Any = answer
        for part in name.split("/"):
            value = value.get(part, chosen) if isinstance(value, dict) else chosen
        if value is not chosen:
            chosen[name] = value
    return chosen


def _chunks(text: str, answer: dict[str, Any]) -> Iterator[str]:
    yield event({"index": 0, "content": text, "stop": False})
    yield event(answer | {"content": ""})

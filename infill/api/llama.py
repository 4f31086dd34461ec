"""llama.cpp's `POST /infill`, as llama.vim and llama.vscode send it.

Read for the shapes: llama.cpp's server README, llama.vim and llama.vscode. What steers an autoregressive sampler
(`top_k`, `samplers`, …) has no meaning here and is passed over. Must not know other APIs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from infill.api.fields import Flag, ListOf, Number, Object, Text
from infill.api.http import complete, event, read, stream
from infill.api.openai import cut
from infill.engine_protocol import Engine, EngineRequest
from infill.request import Hole, InfillRequest, InfillResult, Neighbour

MOST_TOKENS = 100_000
INFILL = Object(
    {
        "input_prefix": Text(),
        "input_suffix": Text(),
        "input_extra": ListOf(Object({"filename": Text(most=4096), "text": Text()}), most=256),
        "prompt": Text(),
        "n_predict": Number(default=-1, least=-2, most=MOST_TOKENS, whole=True),
        "seed": Number(default=0, least=-1, whole=True),
        "stop": ListOf(Text(most=1024), most=256),
        "stream": Flag(),
        "t_max_prompt_ms": Number(default=0, least=0, most=10_000_000),
        "t_max_predict_ms": Number(default=0, least=0, most=10_000_000),
        "language": Text(default=None, most=64),
        "path": Text(default=None, most=4096),
        "response_fields": ListOf(Text(most=256), most=256),
    }
)


async def infill(request: Request, engine: Engine) -> Response:
    """Answers one request. `n_predict` 0, which warms llama.cpp's cache, is answered at once."""
    fields = await read(request, INFILL)
    asked = EngineRequest(_request(fields), any_model=True)
    engine.check(asked)
    if fields["n_predict"] == 0:
        return JSONResponse(_chosen(_answer(engine, "", "limit", None), fields["response_fields"]))
    result = await complete(request, engine, asked)
    best = result.completions[0]
    most = fields["n_predict"] if fields["n_predict"] > 0 else None
    text, finish = cut(engine, best.text if best.shown else "", fields["stop"], most)
    answer = _answer(engine, text, "limit" if finish == "length" else "eos", result)
    if fields["stream"]:
        return stream(_chunks(text, answer))
    return JSONResponse(_chosen(answer, fields["response_fields"]))


def _request(fields: Mapping[str, Any]) -> InfillRequest:
    """`prompt` is what stands in the cursor's line before it, after `input_prefix`."""
    before = fields["input_prefix"] + fields["prompt"]
    limits = [fields[name] for name in ("t_max_prompt_ms", "t_max_predict_ms")]
    return InfillRequest(
        before + fields["input_suffix"],
        (Hole(len(before), len(before)),),
        language=fields["language"],
        path=fields["path"],
        seed=max(0, fields["seed"]) % 2**31,
        deadline_ms=sum(limits) if all(limits) else None,
        neighbours=tuple(Neighbour(one["filename"], one["text"]) for one in fields["input_extra"]),
    )


def _answer(engine: Engine, text: str, stop_type: str, result: InfillResult | None) -> dict[str, Any]:
    read_ms = result.timings_ms["encode"] if result else 0.0
    wrote_ms = result.timings_ms["total"] - read_ms if result else 0.0
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
        "tokens_evaluated": result.prompt_tokens if result else 0,
        "tokens_cached": result.prompt_tokens - min(result.prompt_tokens, read_n) if result else 0,
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
    """Only the fields asked for, those within others by their path ("timings/prompt_n"); all where none is named."""
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

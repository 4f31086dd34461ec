"""OpenAI's legacy completions with `suffix`, its list of models, and the fill-in-the-middle form of chat chunks.

Read for the shapes: OpenAI's API reference, and what minuet (`prompt`, `suffix`, `stream`) and Continue
(`fim/completions`, which reads `choices[0].delta.content`) send. Must not know other APIs.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from infill.api.fields import Flag, ListOf, Number, Object, Text
from infill.api.http import complete, event, read, stream
from infill.engine_protocol import Engine, EngineRequest
from infill.request import Candidate, Hole, InfillRequest, InfillResult

COMPLETION = Object(
    {
        "model": Text(most=1024),
        "prompt": ListOf(Text(), most=1, least=1, single=True, required=True),
        "suffix": Text(),
        "max_tokens": Number(least=0, most=100_000, whole=True),
        "n": Number(default=1, least=1, most=32, whole=True),
        "seed": Number(default=0, whole=True),
        "stop": ListOf(Text(most=1024), most=64, single=True),
        "stream": Flag(),
        "stream_options": Object({"include_usage": Flag()}),
        "echo": Flag(),
        "user": Text(most=256),
        "language": Text(default=None, most=64),
        "path": Text(default=None, most=4096),
    }
)
NOTHING = Candidate("", 0.0, False, None, "model", 0)


async def completions(request: Request, engine: Engine) -> Response:
    """`POST /v1/completions`. A text that is not good enough to show comes back empty; `gesso` says why."""
    return await _answer(request, engine, chat=False)


async def fim_completions(request: Request, engine: Engine) -> Response:
    """`POST /v1/fim/completions`: the same request, answered as a chat message."""
    return await _answer(request, engine, chat=True)


def models(engine: Engine, started: float) -> Response:
    """`GET /v1/models`: the one that is loaded, or will be. started: seconds since 1970."""
    model = {"id": engine.state.model, "object": "model", "created": int(started), "owned_by": "gesso"}
    return JSONResponse({"object": "list", "data": [model]})


async def _answer(request: Request, engine: Engine, chat: bool) -> Response:
    fields = await read(request, COMPLETION)
    prompt = fields["prompt"][0]
    hole = Hole(len(prompt), len(prompt))
    wanted = InfillRequest(
        prompt + fields["suffix"],
        (hole,),
        language=fields["language"],
        path=fields["path"],
        candidates=fields["n"],
        seed=fields["seed"] % 2**31,
    )
    result = await complete(request, engine, EngineRequest(wanted, client=fields["user"], any_model=True))
    shown = [one for one in result.completions[0].candidates if one.shown]
    candidates = (shown + [NOTHING] * fields["n"])[: fields["n"]]
    choices = [_choice(engine, index, one, fields, result, chat) for index, one in enumerate(candidates)]
    usage = _usage(result, candidates)
    kind = "chat.completion" if chat else "text_completion"
    head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": result.model}
    if fields["stream"]:
        with_usage = bool((fields["stream_options"] or {}).get("include_usage"))
        return stream(_chunks(head, choices, usage if with_usage else None, chat))
    return JSONResponse(head | {"choices": choices, "usage": usage})


def _choice(
    engine: Engine, index: int, candidate: Candidate, fields: dict[str, Any], result: InfillResult, chat: bool
) -> dict[str, Any]:
    text, finish = cut(engine, candidate.text, fields["stop"], fields["max_tokens"])
    text = fields["prompt"][0] + text if fields["echo"] and not chat else text
    best = result.completions[0]
    gesso = {
        "shown": candidate.shown,
        "reason": None if candidate.shown else best.reason,
        "confidence": candidate.confidence,
        "source": candidate.source,
    }
    said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {"index": index, **said, "finish_reason": finish, "logprobs": None, "gesso": gesso}


def cut(engine: Engine, text: str, stops: tuple[str, ...], most: int | None) -> tuple[str, str]:
    """The text up to the first of `stops` and of at most `most` tokens, and why it ends: "stop" or "length"."""
    for stop in stops:
        text = text.partition(stop)[0] if stop else text
    if most is not None and len(tokens := engine.tokens(text)) > most:
        return engine.text(tokens[:most]).rstrip("\ufffd"), "length"
    return text, "stop"


def _usage(result: InfillResult, candidates: list[Candidate]) -> dict[str, int]:
    written = sum(one.tokens for one in candidates)
    prompt = result.prompt_tokens
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _chunks(
    head: dict[str, Any], choices: list[dict[str, Any]], usage: dict[str, int] | None, chat: bool
) -> Iterator[str]:
    """Each choice whole, as a canvas has no first token; then why it ended."""
    head = head | ({"object": "chat.completion.chunk"} if chat else {})
    for choice in choices:
        said = {"delta": choice["message"]} if chat else {"text": choice["text"]}
        last: dict[str, Any] = {"delta": {"content": ""}} if chat else {"text": ""}
        rest = {"index": choice["index"], "logprobs": None, "gesso": choice["gesso"]}
        yield event(head | {"choices": [rest | said | {"finish_reason": None}]})
        yield event(head | {"choices": [rest | last | {"finish_reason": choice["finish_reason"]}]})
    if usage is not None:
        yield event(head | {"choices": [], "usage": usage})
    yield "data: [DONE]\n\n"

"""OpenAI's legacy completions with `suffix`, its list of models, and the fill-in-the-middle form of chat chunks.

Sources: OpenAI's API reference, and what minuet (`prompt`, `suffix`, `stream`) and Continue
(`fim/completions`, which reads `choices[0].delta.content`) send. Must not know other APIs.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.errors import InputError
from infill.api.http import Stop, complete, cut, event, read, stream
from infill.api.values import Candidates, Client, Name, Path, Seed, Text
from infill.engine_protocol import Engine, EngineRequest
from infill.request import Candidate, Hole, InfillRequest, InfillResult
from infill.validation import Limits

NOTHING = Candidate("", 0.0, False, "there are no more candidates", "model", 0)


@dataclass(frozen=True)
class StreamOptions:
    include_usage: bool = False


@dataclass(frozen=True, kw_only=True)
class CompletionBody:
    """The body of `/v1/completions` and `/v1/fim/completions`. model: not used."""

    prompt: Annotated[tuple[Text, ...], Limits(1, 1, single=True)]
    suffix: Text = ""
    model: Annotated[str, Limits(most=1024)] = ""
    max_tokens: Annotated[int, Limits(0, 100_000)] | None = None
    n: Candidates = 1
    seed: Seed = 0
    stop: Annotated[tuple[Stop, ...], Limits(most=64, single=True)] = ()
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    echo: bool = False
    user: Client = ""
    language: Name | None = None
    path: Path | None = None


async def completions(request: Request, engine: Engine) -> Response:
    """`POST /v1/completions`. A text that is not good enough to show is empty; the field `gesso` says why."""
    return await _respond(request, engine, chat=False)


async def fim_completions(request: Request, engine: Engine) -> Response:
    """`POST /v1/fim/completions`: the same request, answered as a chat message."""
    return await _respond(request, engine, chat=True)


async def chat_completions(request: Request, engine: Engine) -> Response:
    """`POST /v1/chat/completions`. Raises InputError."""
    raise InputError(
        "Gesso fills holes and does not chat; send `prompt` and `suffix` to /v1/completions, or to /v1/fim/completions "
        "for an answer in the form of a chat message."
    )


def models(engine: Engine, started: float) -> Response:
    """`GET /v1/models`: the model of the service, loaded or not. started: seconds since 1970."""
    model = {"id": engine.state.model, "object": "model", "created": int(started), "owned_by": "gesso"}
    return JSONResponse({"object": "list", "data": [model]})


async def _respond(request: Request, engine: Engine, chat: bool) -> Response:
    body = await read(request, CompletionBody)
    prompt = body.prompt[0]
    hole = Hole(len(prompt), len(prompt))
    infill = InfillRequest(
        prompt + body.suffix,
        (hole,),
        language=body.language,
        path=body.path,
        candidates=body.n,
        seed=body.seed % 2**31,
    )
    result = await complete(request, engine, EngineRequest(infill, client=body.user, any_model=True))
    found = [one if one.shown else replace(one, text="", tokens=0) for one in result.completions[0].candidates]
    candidates = (found + [NOTHING] * body.n)[: body.n]
    choices = [_choice(engine, index, one, body, result, chat) for index, one in enumerate(candidates)]
    usage = _usage(result, candidates)
    kind = "chat.completion" if chat else "text_completion"
    head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": result.model}
    if body.stream:
        return stream(_chunks(head, choices, usage if body.stream_options.include_usage else None, chat))
    return JSONResponse(head | {"choices": choices, "usage": usage})


def _choice(
    engine: Engine, index: int, candidate: Candidate, body: CompletionBody, result: InfillResult, chat: bool
) -> dict[str, Any]:
    text, finish = cut(engine, candidate.text, body.stop, body.max_tokens)
    text = body.prompt[0] + text if body.echo and not chat else text
    gesso = {
        "shown": candidate.shown,
        "reason": candidate.reason,
        "confidence": candidate.confidence,
        "source": candidate.source,
    }
    answer: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {"index": index, **answer, "finish_reason": finish, "logprobs": None, "gesso": gesso}


def _usage(result: InfillResult, candidates: list[Candidate]) -> dict[str, int]:
    written = sum(one.tokens for one in candidates)
    prompt = result.tokens_given
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _chunks(
    head: dict[str, Any], choices: list[dict[str, Any]], usage: dict[str, int] | None, chat: bool
) -> Iterator[str]:
    """Sends each choice in one piece, as a canvas has no first token, and then its finish reason."""
    head = head | ({"object": "chat.completion.chunk"} if chat else {})
    for choice in choices:
        answer = {"delta": choice["message"]} if chat else {"text": choice["text"]}
        last: dict[str, Any] = {"delta": {"content": ""}} if chat else {"text": ""}
        rest = {"index": choice["index"], "logprobs": None, "gesso": choice["gesso"]}
        yield event(head | {"choices": [rest | answer | {"finish_reason": None}]})
        yield event(head | {"choices": [rest | last | {"finish_reason": choice["finish_reason"]}]})
    if usage is not None:
        yield event(head | {"choices": [], "usage": usage})
    yield "data: [DONE]\n\n"

"""What the APIs share: reading bodies, writing errors and streams, and cancelling work when the client disconnects.

Must not know the shape of any API's requests.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from engine.errors import GessoError, InputError
from infill.engine_protocol import BackendError, Busy, Engine, EngineRequest, NotReady
from infill.printable import visible
from infill.privacy import check_sent
from infill.request import InfillRequest, InfillResult, OnStep, StepView
from infill.validation import Limits, structure

T = TypeVar("T")
Stop = Annotated[str, Limits(most=1024)]
CLIENT_CLOSED = 499  # nginx's status for a closed connection; nobody reads it
MAX_QUEUED_STEPS = 64  # for a slow reader; later ones are dropped
EVENTS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class ClientGone(Exception):
    """The client closed the connection."""


async def read(request: Request, body: type[T], other_texts: str = "neighbours") -> T:
    """The body; raises InputError if it is not JSON, a value in it is wrong, or its `path` must not be read.

    other_texts: the field with a list of other files. One that is not valid Unicode is left out, so that it does not
    spoil the requests for every other file.
    """
    content = await request.body()
    try:
        try:
            value = json.loads(content)
        except UnicodeDecodeError:
            value = json.loads(content.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as wrong:
        raise InputError("The body is not valid JSON; send a JSON object in UTF-8.") from wrong
    if isinstance(value, dict) and isinstance(others := value.get(other_texts), list):
        value[other_texts] = [one for one in others if _is_unicode(one)]
    found = structure(body, value, "body")
    if path := getattr(found, "path", None):
        check_sent(Path(path))
    return found


def _is_unicode(value: Any) -> bool:
    """Whether all strings in a JSON value are free of lone surrogates."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def error_response(error: Exception) -> Response:
    """The error in OpenAI's shape, with a sentence for the user."""
    if isinstance(error, ClientGone):
        return Response(status_code=CLIENT_CLOSED)
    status, value = described(error)
    retry_s = error.retry_s if isinstance(error, Busy) else 1.0
    headers = {"Retry-After": str(math.ceil(retry_s))} if status in (429, 503) else None
    return JSONResponse(value, status, headers)


def described(error: Exception) -> tuple[int, dict[str, Any]]:
    """The status for an error, and the error in OpenAI's shape."""
    status, kind = _status(error)
    return status, error_value(str(error), kind, status)


def error_value(message: str, kind: str, status: int) -> dict[str, Any]:
    """message: may quote parts of a request or of a server's response."""
    return {"error": {"message": visible(message), "type": kind, "code": status, "param": None}}


async def complete(request: Request, engine: Engine, engine_request: EngineRequest[InfillRequest]) -> InfillResult:
    """The result; otherwise as `answered`."""
    return await answered(request, engine_request, engine.complete(engine_request))


async def answered(request: Request, engine_request: EngineRequest[Any], work: Coroutine[Any, Any, T]) -> T:
    """Returns the result of the engine's `work` for `engine_request`; cancels it and raises ClientGone if the client
    disconnects first."""
    task, watcher = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        if not task.done():
            engine_request.cancelled.set()
            task.cancel()
        watcher.cancel()


async def streamed(
    request: Request, engine_request: EngineRequest[Any], work: Callable[[OnStep], Coroutine[Any, Any, Any]]
) -> Response:
    """The events of a stream: `step` for each step of the engine's `work`, then `result` or `error`.

    Raises NotReady or Busy before the first event, so that the response has a status of its own.
    """
    events = _events(engine_request, work)
    first = await answered(request, engine_request, anext(events))
    return stream(_joined(first, events))


async def _events(
    engine_request: EngineRequest[Any], work: Callable[[OnStep], Coroutine[Any, Any, Any]]
) -> AsyncGenerator[str]:
    started = False
    try:
        async for one in _steps_and_result(engine_request, work):
            started = True
            yield event(asdict(one), "step" if isinstance(one, StepView) else "result")
    except GessoError as error:
        if not started and isinstance(error, (Busy, NotReady)):
            raise
        yield event(described(error)[1], "error")


async def _joined(first: str, rest: AsyncGenerator[str]) -> AsyncIterator[str]:
    try:
        yield first
        async for one in rest:
            yield one
    finally:
        await rest.aclose()


async def _steps_and_result(
    engine_request: EngineRequest[Any], work: Callable[[OnStep], Coroutine[Any, Any, T]]
) -> AsyncGenerator[StepView | T]:
    """Each step, then the result. Leaving the iteration cancels the work."""
    loop, views = asyncio.get_running_loop(), asyncio.Queue[StepView | None]()

    def on_step(view: StepView) -> None:
        if views.qsize() < MAX_QUEUED_STEPS:
            loop.call_soon_threadsafe(views.put_nowait, view)

    task = asyncio.create_task(work(on_step))
    task.add_done_callback(lambda _: views.put_nowait(None))
    try:
        while (view := await views.get()) is not None:
            yield view
        yield await task
    finally:
        engine_request.cancelled.set()
        task.cancel()


def cut(engine: Engine, text: str, stops: tuple[str, ...], most: int | None) -> tuple[str, str]:
    """The text up to the first of `stops`, of at most `most` tokens, and its finish reason, "stop" or "length"."""
    for stop in stops:
        text = text.partition(stop)[0] if stop else text
    if most is not None and len(tokens := engine.tokens(text)) > most:
        return engine.text(tokens[:most]).rstrip("\ufffd"), "length"
    return text, "stop"


def event(data: Any, name: str | None = None) -> str:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"


def stream(events: AsyncIterator[str] | Iterable[str]) -> StreamingResponse:
    return StreamingResponse(events, media_type="text/event-stream", headers=EVENTS)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)  # `receive` may return at once


def _status(error: Exception) -> tuple[int, str]:
    if isinstance(error, InputError):
        return 400, "invalid_request_error"
    if isinstance(error, NotReady):
        return 503, "unavailable_error"
    if isinstance(error, Busy):
        return 429, "busy_error"
    if isinstance(error, BackendError):
        return 502, "backend_error"
    assert isinstance(error, GessoError)
    return 500, "engine_error"

"""The HTTP paths of the service: one table for its routes and its OpenAPI description.

Must not know how an engine answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from infill.api import edit as api_edit
from infill.api import infill as api_infill
from infill.api import lint as api_lint
from infill.api import llama as api_llama
from infill.api import openai as api_openai
from infill.api.values import EditBody, InfillBody, LintBody
from infill.engine_protocol import Engine

Handler = Callable[[Request, Engine], Awaitable[Response]]


@dataclass(frozen=True)
class Post:
    """body: the dataclass of the request body."""

    path: str
    summary: str
    body: type
    handler: Handler


@dataclass(frozen=True)
class Get:
    """content_type: of the response, "application/json" unless it is text."""

    path: str
    summary: str
    content_type: str = "application/json"


POSTS = (
    Post(
        "/v1/infill",
        "Fill the holes of a text; with `stream`, send the canvas after each step.",
        InfillBody,
        api_infill.infill,
    ),
    Post(
        "/v1/read-ahead",
        "Read the prompt of an infill that is likely to come, with low priority; return the number of tokens read.",
        InfillBody,
        api_infill.read_ahead,
    ),
    Post(
        "/v1/edit",
        "Rewrite a range of a text as an instruction says; with `stream`, send the text after each token.",
        EditBody,
        api_edit.edit,
    ),
    Post("/v1/lint", "Find mistakes in a text, each with its correction.", LintBody, api_lint.lint),
    Post("/v1/completions", "OpenAI's completions, with `suffix`.", api_openai.CompletionBody, api_openai.completions),
    Post(
        "/v1/fim/completions",
        "The same, with a chat message as the response.",
        api_openai.CompletionBody,
        api_openai.fim_completions,
    ),
    Post("/infill", "llama.cpp's infill.", api_llama.LlamaBody, api_llama.infill),
)
REFUSED = {"/v1/chat/completions": api_openai.chat_completions}  # requests that only get an explanation
MODELS = Get("/v1/models", "The loaded model.")
HEALTH = Get("/health", "Whether the model is ready, and how much of it is loaded.")
METRICS = Get("/metrics", "Counts for Prometheus.", "text/plain")
OPENAPI = Get("/openapi.json", "This description.")
DOCS = Get("/docs", "This description as a page.", "text/html")
GETS = (MODELS, HEALTH, METRICS, OPENAPI, DOCS)

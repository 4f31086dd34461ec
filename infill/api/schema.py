"""The OpenAPI description of the service, from the same declarations that check the requests, and a page of it."""

from __future__ import annotations

from html import escape
from typing import Any

from infill.api import infill as api_infill
from infill.api import lint as api_lint
from infill.api import llama as api_llama
from infill.api import openai as api_openai
from infill.api.fields import Object

POSTS: dict[str, tuple[str, Object]] = {
    "/v1/infill": ("Fill the holes of a text; with `stream` the canvas comes as it settles.", api_infill.INFILL),
    "/v1/lint": ("Say what looks wrong in a text, and what should stand there.", api_lint.LINT),
    "/v1/completions": ("OpenAI's completions, with `suffix`.", api_openai.COMPLETION),
    "/v1/fim/completions": ("The same, answered as a chat message.", api_openai.COMPLETION),
    "/infill": ("llama.cpp's infill.", api_llama.INFILL),
}
GETS = {
    "/v1/models": "The model that is loaded.",
    "/health": "Whether the model is ready, and how far its loading is.",
    "/metrics": "Counts for Prometheus.",
    "/openapi.json": "This description.",
    "/docs": "This description as a page.",
}
TEXTS = {"/metrics": "text/plain", "/docs": "text/html"}
TROUBLE = {
    "400": "The request cannot be used.",
    "401": "The token is missing or wrong.",
    "403": "From a web page, or for another host.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "429": "Too much to do before the deadline.",
    "500": "The engine failed.",
    "503": "The model is loading, or could not be loaded.",
}
EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "code": {"type": "integer"}},
        }
    },
}


def description(version: str) -> dict[str, Any]:
    """OpenAPI 3.1."""
    info = {"title": "Gesso", "version": version, "description": "Fills holes in code with a block-diffusion model."}
    posts = {path: {"post": _post(path, *what)} for path, what in POSTS.items()}
    gets = {path: {"get": _get(path, summary)} for path, summary in GETS.items()}
    return {"openapi": "3.1.0", "info": info, "paths": posts | gets}


def page(version: str) -> str:
    """The description as HTML, without scripts."""
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>Gesso {escape(version)}</title><h1>Gesso</h1>"]
    for path, (summary, fields) in POSTS.items():
        parts.append(f"<h2>POST {escape(path)}</h2><p>{escape(summary)}</p><table>")
        for name, field in fields.fields.items():
            schema = {key: value for key, value in field.schema().items() if key not in ("properties",)}
            needed = "required" if field.required else ""
            parts.append(f"<tr><td><code>{escape(name)}</code><td>{needed}<td><code>{escape(str(schema))}</code>")
        parts.append("</table>")
    parts += [f"<h2>GET {escape(path)}</h2><p>{escape(summary)}</p>" for path, summary in GETS.items()]
    return "".join(parts) + "</html>"


def _post(path: str, summary: str, fields: Object) -> dict[str, Any]:
    answer = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": EVENT}}
    return {
        "operationId": path.strip("/").replace("/", "_"),
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": fields.schema()}}},
        "responses": {"200": {"description": "The answer.", "content": answer}} | _troubles(TROUBLE),
    }


def _get(path: str, summary: str) -> dict[str, Any]:
    kind = TEXTS.get(path, "application/json")
    schema = {"type": "string"} if path in TEXTS else {"type": "object"}
    troubles = {"401": TROUBLE["401"], "403": TROUBLE["403"]}
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": {kind: {"schema": schema}}}}
    if path == "/health":
        responses["503"] = {"description": TROUBLE["503"], "content": {kind: {"schema": schema}}}
    return {
        "operationId": "get_" + path.strip("/").replace("/", "_").replace(".", "_"),
        "summary": summary,
        "responses": responses | _troubles(troubles),
    }


def _troubles(sentences: dict[str, str]) -> dict[str, Any]:
    content = {"application/json": {"schema": ERROR}}
    return {status: {"description": sentence, "content": content} for status, sentence in sentences.items()}

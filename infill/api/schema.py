"""The OpenAPI description of the service, from the types that check the requests, and the same as a page.

Must not know how a request is answered.
"""

from __future__ import annotations

from html import escape
from typing import Any

from infill.api.paths import GETS, HEALTH, POSTS, Get, Post
from infill.validation import json_schema

ERRORS = {
    "400": "The request cannot be used.",
    "401": "The token is missing or wrong.",
    "403": "The request comes from a web page, or names another host.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "429": "The service has too much to do before the deadline.",
    "500": "The engine failed.",
    "502": "Another server, to which the request was sent, failed.",
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
    posts = {post.path: {"post": _post(post)} for post in POSTS}
    gets = {get.path: {"get": _get(get)} for get in GETS}
    return {"openapi": "3.1.0", "info": info, "paths": posts | gets}


def page(version: str) -> str:
    """The description as HTML, without scripts."""
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>Gesso {escape(version)}</title><h1>Gesso</h1>"]
    for post in POSTS:
        parts.append(f"<h2>POST {escape(post.path)}</h2><p>{escape(post.summary)}</p><table>")
        schema = json_schema(post.body)
        for name, described in schema["properties"].items():
            needed = "required" if name in schema.get("required", ()) else ""
            parts.append(f"<tr><td><code>{escape(name)}</code><td>{needed}<td><code>{escape(str(described))}</code>")
        parts.append("</table>")
    parts += [f"<h2>GET {escape(get.path)}</h2><p>{escape(get.summary)}</p>" for get in GETS]
    return "".join(parts) + "</html>"


def _post(post: Post) -> dict[str, Any]:
    answer = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": EVENT}}
    return {
        "operationId": post.path.strip("/").replace("/", "_"),
        "summary": post.summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": json_schema(post.body)}}},
        "responses": {"200": {"description": "The answer.", "content": answer}} | _errors(ERRORS),
    }


def _get(get: Get) -> dict[str, Any]:
    schema = {"type": "string" if get.content_type.startswith("text/") else "object"}
    content = {get.content_type: {"schema": schema}}
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": content}}
    if get is HEALTH:
        responses["503"] = {"description": ERRORS["503"], "content": content}
    return {
        "operationId": "get_" + get.path.strip("/").replace("/", "_").replace(".", "_"),
        "summary": get.summary,
        "responses": responses | _errors({status: ERRORS[status] for status in ("401", "403")}),
    }


def _errors(sentences: dict[str, str]) -> dict[str, Any]:
    content = {"application/json": {"schema": ERROR}}
    return {status: {"description": sentence, "content": content} for status, sentence in sentences.items()}

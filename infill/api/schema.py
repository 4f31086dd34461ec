"""The OpenAPI description of the service, from the same declarations that check the requests, and a page of it."""

from __future__ import annotations

from html import escape
from typing import Any

from infill.api.paths import GETS, HEALTH, POSTS, Get, Post

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
    posts = {one.path: {"post": _post(one)} for one in POSTS}
    gets = {one.path: {"get": _get(one)} for one in GETS}
    return {"openapi": "3.1.0", "info": info, "paths": posts | gets}


def page(version: str) -> str:
    """The description as HTML, without scripts."""
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>Gesso {escape(version)}</title><h1>Gesso</h1>"]
    for one in POSTS:
        parts.append(f"<h2>POST {escape(one.path)}</h2><p>{escape(one.summary)}</p><table>")
        for name, field in one.body.fields.items():
            schema = {key: value for key, value in field.schema().items() if key not in ("properties",)}
            needed = "required" if field.required else ""
            parts.append(f"<tr><td><code>{escape(name)}</code><td>{needed}<td><code>{escape(str(schema))}</code>")
        parts.append("</table>")
    parts += [f"<h2>GET {escape(one.path)}</h2><p>{escape(one.summary)}</p>" for one in GETS]
    return "".join(parts) + "</html>"


def _post(one: Post) -> dict[str, Any]:
    answer = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": EVENT}}
    return {
        "operationId": one.path.strip("/").replace("/", "_"),
        "summary": one.summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": one.body.schema()}}},
        "responses": {"200": {"description": "The answer.", "content": answer}} | _troubles(TROUBLE),
    }


def _get(one: Get) -> dict[str, Any]:
    schema = {"type": "object" if one.content_type == "application/json" else "string"}
    content = {one.content_type: {"schema": schema}}
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": content}}
    if one is HEALTH:
        responses["503"] = {"description": TROUBLE["503"], "content": content}
    troubles = {"401": TROUBLE["401"], "403": TROUBLE["403"]}
    return {
        "operationId": "get_" + one.path.strip("/").replace("/", "_").replace(".", "_"),
        "summary": one.summary,
        "responses": responses | _troubles(troubles),
    }


def _troubles(sentences: dict[str, str]) -> dict[str, Any]:
    content = {"application/json": {"schema": ERROR}}
    return {status: {"description": sentence, "content": content} for status, sentence in sentences.items()}

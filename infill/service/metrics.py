"""The counts of a service in Prometheus's text format 0.0.4. Numbers only, nothing from any request."""

from __future__ import annotations

from collections.abc import Iterator

from infill.engine_protocol import BUCKETS_S, Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics(engine: Engine, uptime_s: float) -> str:
    """All metrics, each with its help text."""
    return "\n".join(_lines(engine, uptime_s)) + "\n"


def _lines(engine: Engine, uptime_s: float) -> Iterator[str]:
    counts = engine.counts
    yield from _head("requests_total", "counter", "Requests by priority and outcome.")
    for (priority, outcome), number in sorted(counts.outcomes.items()):
        yield f'gesso_requests_total{{priority="{priority}",outcome="{outcome}"}} {number}'
    if counts.backends:
        yield from _head("backend_requests_total", "counter", "Requests by backend and outcome.")
    for (backend, outcome), number in sorted(counts.backends.items()):
        yield f'gesso_backend_requests_total{{backend="{backend}",outcome="{outcome}"}} {number}'
    if counts.retries:
        yield from _head("retries_total", "counter", "Requests that a second model answered too, by outcome.")
    for outcome, number in sorted(counts.retries.items()):
        yield f'gesso_retries_total{{outcome="{outcome}"}} {number}'
    yield from _head("request_seconds", "histogram", "From a request to its response, waiting included.")
    for bucket in (*BUCKETS_S, float("inf")):
        label = "+Inf" if bucket == float("inf") else f"{bucket:g}"
        yield f'gesso_request_seconds_bucket{{le="{label}"}} {counts.seconds[bucket]}'
    yield f"gesso_request_seconds_sum {counts.total_s:.6f}"
    yield f"gesso_request_seconds_count {counts.seconds[float('inf')]}"
    yield from _one("pending", "gauge", "Requests that wait or run.", engine.pending)
    yield from _one("ready", "gauge", "1 once the model is loaded.", int(engine.state.kind == "ready"))
    yield from _one("uptime_seconds", "gauge", "Since the service started.", round(uptime_s, 3))
    yield from _one("encoded_tokens_total", "counter", "Prompt tokens encoded.", counts.encoded_tokens)
    yield from _one("denoise_steps_total", "counter", "Denoising steps of all canvases.", counts.denoise_steps)
    if (usage := engine.usage) is not None:
        yield from _one("passes_total", "counter", "Forward passes over canvases, each over a batch.", usage.passes)
        yield from _one("passed_canvases_total", "counter", "Canvases in these passes.", usage.canvases)
        yield from _one("prompt_cache_bytes", "gauge", "Keys and values of cached prompts.", usage.cache_bytes)


def _one(name: str, kind: str, help: str, value: float) -> Iterator[str]:
    yield from _head(name, kind, help)
    yield f"gesso_{name} {value}"


def _head(name: str, kind: str, help: str) -> Iterator[str]:
    yield f"# HELP gesso_{name} {help}"
    yield f"# TYPE gesso_{name} {kind}"

"""One turn of this engine in `bench.speed.coder`: reads a task as JSON, measures it, writes the times as JSON.

Must not know the other side.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from engine.decoding import Limits, decode
from engine.token_tree import TokenTree
from infill.complete.causal_completion import CausalCompleter
from infill.complete.pipeline import load_model, make_completer
from infill.request import Hole, InfillRequest
from infill.settings import Settings
from infill.version import installed_version


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """The fields of `bench.speed.coder.Times` for those of a `Task`."""
    settings = Settings(model=task["model"])
    completer = make_completer(load_model(settings), settings)
    assert isinstance(completer, CausalCompleter), "only code models are measured"
    prompt = completer.family.tokens.encode(task["text"])[: task["prompt_tokens"]]
    assert len(prompt) == task["prompt_tokens"], "the text is too short for the prompt"
    found: dict[str, Any] = {
        "version": f"torch {installed_version('torch')}",
        "threads": torch.get_num_threads(),
        **{name: [] for name in ("cold", "token", "first", "key", "key_tokens")},
    }
    for _ in range(task["repeats"]):
        completer.decoder.cache.clear()
        found["cold"].append(_written_ms(completer, prompt, 1))
        one = _written_ms(completer, prompt, 1)
        all_ms = _written_ms(completer, prompt, 1 + task["decoded_tokens"])
        found["token"].append((all_ms - one) / task["decoded_tokens"])
    completer.decoder.cache.clear()
    for requests in task["lines"]:
        for index, request in enumerate(requests):
            cursor = request["cursor"]
            asked = InfillRequest(
                request["text"], (Hole(cursor, cursor),), request["language"], request["path"], lines="one"
            )
            started = time.perf_counter()
            result = completer.complete(asked)
            taken = 1000 * (time.perf_counter() - started)
            found["key" if index else "first"].append(taken)
            if index:
                found["key_tokens"].append(result.encoded_tokens)
    return found


def _written_ms(completer: CausalCompleter, prompt: Sequence[int], count: int) -> float:
    """Milliseconds to read what is not cached of the prompt and to decode `count` tokens, without the end of text."""
    nothing = torch.empty(0, dtype=torch.long)
    limits = Limits(count, allowed=lambda tokens: None, done=lambda tokens: False, banned=nothing)
    decoder = completer.decoder
    started = time.perf_counter()
    with decoder.cache.encoded(prompt[:-1]) as lease, TokenTree(decoder.model, lease.kv, prompt[-1:]) as tree:
        assert len(decode(tree, limits)[0].tokens) == count
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))

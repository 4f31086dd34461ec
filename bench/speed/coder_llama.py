"""One turn of llama.cpp in `bench.speed.coder`: reads a task as JSON, measures it, writes the times as JSON.

Runs as a script that imports nothing of this project, which would change how llama.cpp's threads wait. Needs the
package xllamacpp. Must not know the other side.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from typing import Any

# What llama.vim sends, and the server it recommends: autoload/llama.vim (commit a1c8e6e) of ggml-org/llama.vim, and the
# options --fim-qwen-*-default of llama.cpp's server.
PREFIX_LINES, SUFFIX_LINES = 256, 64
VIM = {
    "id_slot": 0,
    "input_extra": [],
    "n_predict": 128,
    "stop": [],
    "top_k": 40,
    "top_p": 0.90,
    "samplers": ["top_k", "top_p", "infill"],
    "stream": False,
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 250,
}
BATCH, CACHE_REUSE = 1024, 256  # tokens
GREEDY = {"samplers": ["top_k"], "top_k": 1, "ignore_eos": True, "stream": False, "id_slot": 0}


class Server:
    """A llama.cpp server in this process, asked over HTTP as an editor asks it."""

    def __init__(self, file: str, threads: int) -> None:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = file
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        settings.n_ctx = 0  # the model's
        settings.n_parallel = 1
        settings.n_batch = settings.n_ubatch = BATCH
        settings.n_cache_reuse = CACHE_REUSE
        settings.verbosity = 1  # errors only
        settings.port = 0  # any free one
        self.server = xllamacpp.Server(settings)
        self.version = f"xllamacpp {xllamacpp.__version__}, {xllamacpp.get_system_info().strip(' |')}"

    def post(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The answer, and the milliseconds it took."""
        data = json.dumps(body).encode()
        address = self.server.listening_address + path
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
        started = time.perf_counter()
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)
        return answer, 1000 * (time.perf_counter() - started)


def infill_body(text: str, cursor: int) -> dict[str, Any]:
    """The body of llama.vim's request at an offset of a text."""
    *above, typed = text[:cursor].split("\n")
    rest, *below = text[cursor:].split("\n")
    if not (typed + rest).strip():  # llama.vim asks from the start of a blank line
        typed = rest = ""
    return {
        **VIM,
        "input_prefix": "\n".join(above[-PREFIX_LINES:]) + "\n",
        "prompt": typed,
        "input_suffix": rest + "\n" + "\n".join(below[:SUFFIX_LINES]) + "\n",
        "n_indent": len(typed) - len(typed.lstrip()),
    }


def measure(task: dict[str, Any], server: Any) -> dict[str, Any]:
    """The fields of `bench.speed.coder.Times` for those of a `Task`. server: a `Server`."""
    prompt = server.post("/tokenize", {"content": task["text"]})[0]["tokens"][: task["prompt_tokens"]]
    assert len(prompt) == task["prompt_tokens"], "the text is too short for the prompt"

    def written_ms(count: int, cached: bool) -> float:
        answer, taken = server.post(
            "/completion", {**GREEDY, "prompt": prompt, "n_predict": count, "cache_prompt": cached}
        )
        timings = answer["timings"]
        assert timings["predicted_n"] == count, "the answer ended early"
        assert cached == (timings["prompt_n"] < len(prompt)), "the prompt is not cached as it should be"
        return float(taken)

    found: dict[str, Any] = {
        "version": server.version,
        "threads": task["threads"],
        **{name: [] for name in ("cold", "token", "first", "key", "key_tokens")},
    }
    for _ in range(task["repeats"]):
        found["cold"].append(written_ms(1, cached=False))
        one, all_ms = written_ms(1, cached=True), written_ms(1 + task["decoded_tokens"], cached=True)
        found["token"].append((all_ms - one) / task["decoded_tokens"])
    for requests in task["lines"]:
        for index, request in enumerate(requests):
            answer, taken = server.post("/infill", infill_body(request["text"], request["cursor"]))
            found["key" if index else "first"].append(taken)
            if index:
                found["key_tokens"].append(answer["timings"]["prompt_n"])
    return found


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(json.dumps(measure(asked, Server(asked["file"], asked["threads"]))), flush=True)

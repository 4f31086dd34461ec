"""The comparison with llama.cpp: this engine on a tiny model, llama.cpp's side against a fake server. No time is
asserted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.speed import coder as bench
from bench.speed.coder import ENGINE, LLAMA, Task, Times, figures, notes, requests, rows
from bench.speed.coder_engine import measure as measure_engine
from bench.speed.coder_llama import infill_body
from bench.speed.coder_llama import measure as measure_llama
from bench.typed_lines import Source, TypedLine
from engine.errors import InputError
from tests.engine.tiny_qwen2 import reference, save_folder
from tests.infill.tiny_coder import coder_tokens, metadata

LINE = "    value = compute(number)\n"
SOURCE = Source("file.py", LINE * 300, "python")
TYPED = TypedLine(SOURCE, 150 * len(LINE), 151 * len(LINE) - 1, 12)
OURS = Times("torch", 2, [100.0, 120.0], [5.0], [50.0], [10.0, 20.0, 30.0], [1, 1, 2])
THEIRS = Times("xllamacpp", 2, [300.0, 360.0], [5.0], [500.0], [200.0, 200.0, 400.0], [253, 253, 253])


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A tiny code model with random weights."""
    size = len(metadata()["tokenizer.ggml.tokens"])
    place = save_folder(reference(vocab_size=size, max_position_embeddings=4096), tmp_path / "model")
    coder_tokens().tokenizer.save(str(place / "tokenizer.json"))
    return str(place)


def task(model: str) -> Task:
    return Task(model, model, 1, SOURCE.text, 60, 4, 2, [requests(TYPED, 3), requests(TYPED, 1)])


def test_a_turn_of_the_engine_reads_one_token_per_key(folder: str) -> None:
    times = Times(**measure_engine(asdict(task(folder))))
    assert len(times.cold) == len(times.token) == 2 and len(times.first) == 2 and len(times.key) == 4
    assert all(one > 0 for one in (*times.cold, *times.first, *times.key)) and times.threads >= 1
    assert all(1 <= read < 10 for read in times.key_tokens)


@pytest.mark.slow
def test_the_whole_program_without_llama_cpp(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(bench, "PROMPT_TOKENS", 60)
    monkeypatch.setattr(bench, "DECODED_TOKENS", 4)
    bench.main(folder, 1, 1, None)
    shown = capsys.readouterr().out
    assert "next key, p95, ms" in shown and "llama.cpp was not measured" in " ".join(shown.split())


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="pocket is not a code model"):
        bench.main("pocket", 1, 1, None)


def test_a_side_that_fails_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="measures engine failed"):
        bench.take_turn(ENGINE, task("./nowhere"))
    assert "nowhere" in capsys.readouterr().err


class FakeServer:
    """Answers as llama.cpp's server does, and keeps what it was asked."""

    version = "fake"

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def post(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
        self.asked.append((path, body))
        if path == "/tokenize":
            return {"tokens": list(range(100))}, 1.0
        if path == "/infill":
            return {"timings": {"prompt_n": 253}}, 7.0
        read = 1 if body["cache_prompt"] else len(body["prompt"])
        return {"timings": {"predicted_n": body["n_predict"], "prompt_n": read}}, 10.0 * body["n_predict"]


def test_a_turn_of_llama_cpp() -> None:
    server = FakeServer()
    times = Times(**measure_llama(asdict(task("model.gguf")), server))
    assert times.cold == [10.0, 10.0] and times.token == [10.0, 10.0]  # (50 - 10) ms for 4 tokens
    assert times.first == [7.0, 7.0] and times.key == [7.0] * 4 and times.key_tokens == [253] * 4
    middles = [body["prompt"] for path, body in server.asked if path == "/infill"]
    assert middles == [LINE[: 12 + typed] for typed in (0, 1, 2, 3, 0, 1)]


def test_a_cold_prompt_from_the_cache_is_refused() -> None:
    class Cached(FakeServer):
        def post(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
            answer, taken = super().post(path, body)
            answer.get("timings", {})["prompt_n"] = 1
            return answer, taken

    with pytest.raises(AssertionError, match="not cached as it should be"):
        measure_llama(asdict(task("model.gguf")), Cached())


def test_llama_cpp_is_asked_as_llama_vim_asks() -> None:
    lines = [f"line {number}" for number in range(400)]
    text = "\n".join([*lines[:300], "    typed rest", *lines[300:]])
    body = infill_body(text, text.index(" rest"))
    assert body["input_prefix"] == "".join(f"line {number}\n" for number in range(44, 300))
    assert body["prompt"] == "    typed" and body["n_indent"] == 4
    assert body["input_suffix"] == " rest\n" + "".join(f"line {number}\n" for number in range(300, 364))
    blank = infill_body("if x:\n    \ny\n", len("if x:\n    "))
    assert (blank["prompt"], blank["n_indent"], blank["input_suffix"]) == ("", 0, "\ny\n\n")


def test_the_table_compares_both_sides() -> None:
    table = {row[0]: row[1:] for row in rows({ENGINE: OURS, LLAMA: THEIRS})}
    assert table["cold prompt, ms"] == ["330 (315–345)", "110 (105–115)", "3.0 (3.0–3.0)", "2.5"]
    assert table["next key, p50, ms"] == ["200", "20", "10.0", "10.0"]
    assert table["prompt tokens read per key, p50"][:2] == ["253", "1"]
    joined = OURS.and_then(OURS)
    assert joined.key == [*OURS.key, *OURS.key] and figures({ENGINE: joined})[ENGINE]["keys"] == 6
    assert "xllamacpp" in notes({ENGINE: OURS, LLAMA: THEIRS}, 1, 3)[-1]

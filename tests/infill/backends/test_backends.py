"""What is sent to servers of each kind, and what becomes of their answers, good and bad. Servers in this process."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Cancelled, InputError
from infill.backends.autoregressive import AutoregressiveBackend, CompletionOptions
from infill.backends.backend import Backend, BackendDown, BackendRefused
from infill.backends.build import members
from infill.backends.gesso import GessoBackend
from infill.backends.remote import Address, Remote
from infill.backends.routes import BackendSettings, Routes
from infill.backends.vllm import ServedModel, VllmBackend
from infill.connection import CancellableConnection
from infill.findings import LintRequest
from infill.prompts.chat import ChatPrompt
from infill.prompts.text_tokens import TextTokens
from infill.request import InfillRequest, InfillResult
from tests.infill.backends.servers import JsonServer, Refusal, serving
from tests.infill.fakes import chat_tokenizer, request
from tests.waiting import PATIENCE_S

FUNCTION = "def add(one, other):\n    total = one + other\n    return §\n\n\nprint(add(1, 2))\n"
TURN_END = 106


def ask(
    backend: Backend,
    asked: InfillRequest,
    timeout_s: float = PATIENCE_S,
    connection: CancellableConnection | None = None,
) -> InfillResult:
    return backend.complete(asked, "inline", timeout_s, connection or CancellableConnection())


def text_of(result: InfillResult) -> str:
    return result.completions[0].text


# an autoregressive server


def says_text(*texts: str, scores: list[float] | None = None) -> Callable[[str, dict[str, Any]], Any]:
    rest = list(texts)

    def says(path: str, body: dict[str, Any]) -> Any:
        assert path == "/v1/completions"
        logprobs = None if scores is None else {"token_logprobs": scores}
        text = rest.pop(0) if len(rest) > 1 else rest[0]
        return {"choices": [{"text": text, "logprobs": logprobs}], "usage": {"prompt_tokens": 7}}

    return says


@pytest.fixture
def coder() -> Iterator[Callable[..., tuple[JsonServer, AutoregressiveBackend]]]:
    """Makes a server that says texts, and its backend."""
    made: list[JsonServer] = []

    def make(*texts: str, scores: list[float] | None = None, **asking: Any) -> tuple[JsonServer, AutoregressiveBackend]:
        made.append(JsonServer(says_text(*texts, scores=scores)))
        remote = Remote("coder", Address(made[-1].url, token="0123456789abcdef"))
        return made[-1], AutoregressiveBackend("coder", remote, CompletionOptions("m", **asking))

    yield make
    for server in made:
        server.close()


def test_the_suffix_goes_in_its_field_or_into_the_prompt(coder: Any) -> None:
    server, backend = coder("total")
    assert text_of(ask(backend, request(FUNCTION))) == "total"
    (body,) = server.bodies
    assert body["prompt"].endswith("    return ") and body["suffix"].startswith("\n\n\nprint(add(")
    assert body["stop"] == ["\n"] and body["temperature"] == 0.0 and body["model"] == "m"
    assert server.heads[0]["Authorization"] == "Bearer 0123456789abcdef"
    server, backend = coder("total", prompt="<P>{prefix}<S>{suffix}<M>")
    ask(backend, request(FUNCTION.replace("total", "{suffix}")))
    (body,) = server.bodies
    assert "suffix" not in body and re.fullmatch(r"<P>def add.*\{suffix\}.*return <S>\n.*<M>", body["prompt"], re.S)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("total\n    print(1)\n", "total"),
        ("total\n\n\nprint(add(1, 2))\n", "total"),
        ("total\r\n", "total"),
        ("total\ufffd", "total"),
    ],
)
def test_its_text_is_cut_to_the_line(coder: Any, said: str, wanted: str) -> None:
    assert text_of(ask(coder(said)[1], request(FUNCTION, lines="one"))) == wanted


def test_its_text_is_cut_to_the_block_and_without_what_follows(coder: Any) -> None:
    block = "for one in range(3):\n        print(one)\n"
    asked = request("def show():\n    §\n\n\nprint(show())\n", lines="block")
    for said in (block + "\n\nprint(show())\n", block + "\ndef other():\n    pass\n"):
        assert text_of(ask(coder(said)[1], asked)).strip() == block.strip()


def test_its_text_does_not_repeat_closers_of_an_unbalanced_file(coder: Any) -> None:
    asked = request("show(rows.map((x) => ({ id: x §));\n", language="javascript", lines="one")
    assert text_of(ask(coder("})));")[1], asked)) == "})"


def test_its_text_passes_the_same_checks(coder: Any) -> None:
    (completion,) = ask(coder("total)")[1], request(FUNCTION)).completions
    assert not completion.shown or completion.text == "total", "a bracket too many is cut back, or not shown"
    (completion,) = ask(coder("")[1], request(FUNCTION)).completions
    assert not completion.shown and completion.reason


def test_its_probabilities_are_the_confidence(coder: Any) -> None:
    (completion,) = ask(coder("total", scores=[-1.0, -3.0])[1], request(FUNCTION)).completions
    assert completion.confidence == pytest.approx(0.1353, abs=1e-3)
    server, backend = coder("total", log_probabilities=False)
    ask(backend, request(FUNCTION))
    assert "logprobs" not in server.bodies[0]


def test_further_candidates_are_sampled_and_duplicates_are_removed(coder: Any) -> None:
    server, backend = coder("total", "one + other", "total")
    (completion,) = ask(backend, request(FUNCTION, candidates=3)).completions
    assert {one.text for one in completion.candidates} == {"total", "one + other"}
    assert [body["temperature"] for body in server.bodies] == [0.0, 0.6, 0.6]


def test_several_holes_are_filled_from_the_top_down(coder: Any) -> None:
    server, backend = coder("one", "two")
    asked = request("first = §\nsecond = §\nprint(first, second)\n")
    result = ask(backend, asked)
    assert [one.text for one in result.completions] == ["one", "two"]
    assert [one.hole for one in result.completions] == list(asked.holes)
    assert "first = one\n" in server.bodies[1]["prompt"]


# vLLM


class FakeVllm:
    """Refuses what vLLM 0.33 refuses; writes `texts` into the holes, token by token, then ends the answer."""

    def __init__(self, tokens: TextTokens, text: str) -> None:
        self.tokens, self.text = tokens, text
        self.lengths: list[int] = []

    def __call__(self, path: str, body: dict[str, Any]) -> Any:
        extra, width = body["vllm_xargs"], body["vllm_xargs"]["diffusion_canvas_length"]
        seed, pins = extra["diffusion_seed_canvas"], extra["diffusion_pinned"]
        size = self.tokens.tokenizer.get_vocab_size()
        fine = (
            path == "/v1/completions"
            and body["temperature"] == 1.0
            and not {"seed", "min_p", "logit_bias", "bad_words", "allowed_token_ids"} & set(body)
            and 0 < width <= 256
            and len(seed) == width == body["max_tokens"]
            and all(0 <= token < size for token in seed)
            and all(0 <= pin < width for pin in pins)
            and extra["diffusion_max_steps"] > 0
            and extra["diffusion_read_only"] == 1
            and all(isinstance(one, int) for one in [*body["prompt"], *seed, *pins])
        )
        if not fine:
            raise Refusal(400, "vLLM refuses this")
        generated = [*self.tokens.encode(self.text), TURN_END]
        holes = [column for column in range(width) if column not in pins]
        self.lengths.append(len(holes))
        answer = [(token + 1) % size for token in seed]  # pins hold on the input only
        for place, column in enumerate(holes):
            answer[column] = generated[place] if place < len(generated) else seed[column]
        fits = -0.05 if len(holes) >= len(generated) else -3.0
        scores = [fits if column in holes[: len(generated)] else -0.5 for column in range(width)]
        return {"choices": [{"text": "", "token_ids": answer, "logprobs": {"token_logprobs": scores}}]}


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> TextTokens:
    return TextTokens.read(chat_tokenizer(tmp_path_factory.mktemp("chat")))


def vllm(server: JsonServer, chat: TextTokens) -> VllmBackend:
    return VllmBackend("big", Remote("big", Address(server.url)), lambda: ChatPrompt(chat), ServedModel("m"))


def test_a_canvas_is_pinned_probed_spliced_and_cut_at_the_end_of_the_turn(chat: TextTokens) -> None:
    fake = FakeVllm(chat, "total + 1")
    with serving(fake) as server:
        result = ask(vllm(server, chat), request(FUNCTION))
    assert text_of(result) == "total + 1" and result.completions[0].shown
    assert len(set(fake.lengths)) > 3, "several lengths were probed"
    last = server.bodies[-1]["vllm_xargs"]
    seed, pins = last["diffusion_seed_canvas"], last["diffusion_pinned"]
    known = chat.decode([token for column, token in enumerate(seed) if column in pins])
    assert known.startswith("```python\n") and "return" in known and "print(add(1, 2))" in known
    assert [body["vllm_xargs"]["diffusion_max_steps"] for body in server.bodies].count(48) == 2


def test_the_typed_part_of_a_token_is_pinned(chat: TextTokens) -> None:
    """`re` may be the beginning of `ret`, which the tokenizer has: the canvas must not replace it."""
    fake = FakeVllm(chat, "sult")
    with serving(fake) as server:
        result = ask(vllm(server, chat), request("result = 1\nprint(re§)\n"))
    assert text_of(result) == "sult"


def test_a_one_line_hole_ends_at_a_line_break(chat: TextTokens) -> None:
    with serving(FakeVllm(chat, "total\n    more")) as server:
        assert text_of(ask(vllm(server, chat), request(FUNCTION, lines="one"))) == "total"


def test_the_same_seed_sends_the_same_requests(chat: TextTokens) -> None:
    with serving(FakeVllm(chat, "total")) as server:
        for seed in (0, 0, 1):
            ask(vllm(server, chat), request(FUNCTION, seed=seed))
    third = len(server.bodies) // 3
    asked = [sorted(str(one["vllm_xargs"]) for one in server.bodies[k * third : (k + 1) * third]) for k in range(3)]
    assert asked[0] == asked[1] != asked[2]


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"text": "x"}]},
        {"choices": [{"text": "x", "token_ids": [1], "logprobs": {"token_logprobs": [0.0]}}]},
        {"choices": []},
        [],
    ],
)
def test_a_server_that_is_not_vllm_is_reported(chat: TextTokens, answer: Any) -> None:
    with serving(lambda path, body: answer) as server, pytest.raises(BackendRefused, match="not vLLM"):
        ask(vllm(server, chat), request(FUNCTION))


def test_servers_that_only_complete_do_not_lint(coder: Any, chat: TextTokens) -> None:
    server, backend = coder("x")
    for one in (backend, vllm(server, chat)):
        with pytest.raises(BackendRefused, match="cannot lint"):
            one.lint(LintRequest("x"), "lint", PATIENCE_S, CancellableConnection())
    with pytest.raises(BackendRefused, match="one hole"):
        ask(vllm(server, chat), request("a = §\nb = §\n"))


# connections


def test_a_connection_is_kept_and_replaced_if_the_server_closed_it(coder: Any) -> None:
    server, backend = coder("total")
    for _ in range(3):
        ask(backend, request(FUNCTION))
    assert server.connections == 1
    (kept,) = backend.remote._idle
    kept.sock.shutdown(socket.SHUT_RDWR)
    assert text_of(ask(backend, request(FUNCTION))) == "total" and server.connections == 2


@pytest.mark.parametrize(
    ("says", "error", "word"),
    [
        (Refusal(503, "it loads"), BackendRefused, "503: it loads"),
        (Refusal(401, "no"), BackendRefused, "401"),
        (Refusal(400, "no such model"), InputError, "no such model"),
        (b"<html>", BackendRefused, "status 200"),
        ({"choices": [{}]}, BackendRefused, "not return OpenAI"),
        ({"choices": 3}, BackendRefused, "not return OpenAI"),
    ],
)
def test_invalid_responses_are_reported(says: Any, error: type[Exception], word: str) -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        if isinstance(says, Refusal):
            raise says
        return says

    with serving(answer) as server:
        backend = AutoregressiveBackend("coder", Remote("coder", Address(server.url)), CompletionOptions("m"))
        with pytest.raises(error, match=word):
            ask(backend, request(FUNCTION))


def test_an_absent_or_late_backend_is_down() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        backend = AutoregressiveBackend("coder", Remote("coder", Address(url)), CompletionOptions("m"))
        with pytest.raises(BackendDown, match="cannot be reached"):
            ask(backend, request(FUNCTION))
        taken.listen()
        with pytest.raises(BackendDown, match=r"did not answer within 0\.\d+ s"):
            ask(backend, request(FUNCTION), timeout_s=0.2)


def test_a_response_that_trickles_is_late() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                    for _ in range(1000):
                        connection.sendall(b" ")
                        time.sleep(0.01)
                except OSError:
                    pass

        threading.Thread(target=trickle, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        backend = AutoregressiveBackend("coder", Remote("coder", Address(url)), CompletionOptions("m"))
        with pytest.raises(BackendDown, match="did not answer"):
            ask(backend, request(FUNCTION), timeout_s=0.3)


def test_cancelling_closes_the_connection_to_the_server() -> None:
    begun, gone = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                begun.set()
                while connection.recv(1 << 16):
                    pass
                gone.set()

        threading.Thread(target=serve, daemon=True).start()
        remote = Remote("coder", Address(f"http://127.0.0.1:{listener.getsockname()[1]}/v1"))
        connection = CancellableConnection()
        threading.Thread(target=lambda: (begun.wait(PATIENCE_S), connection.cancel()), daemon=True).start()
        with pytest.raises(Cancelled):
            ask(
                AutoregressiveBackend("coder", remote, CompletionOptions("m")), request(FUNCTION), connection=connection
            )
        assert gone.wait(PATIENCE_S)


def test_another_kind_of_server_is_not_a_gesso_service(coder: Any) -> None:
    server, _ = coder("x")
    server.says = lambda path, body: {"completions": 3}
    backend = GessoBackend("team", Remote("team", Address(server.url.removesuffix("/v1"))))
    with pytest.raises(BackendRefused, match="not a Gesso service"):
        ask(backend, request(FUNCTION))
    assert server.bodies[0]["local"] is True
    with pytest.raises(BackendRefused, match="not a Gesso service"):
        backend.lint(LintRequest("x"), "lint", PATIENCE_S, CancellableConnection())


# settings


def test_backends_are_built_from_their_settings(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    made = members(
        Routes(
            {},
            {
                "team": BackendSettings("gesso", "https://team.example", token_file=str(token)),
                "big": BackendSettings("vllm", "http://127.0.0.1:8000/v1", model="m", tokenizer="26b"),
                "coder": BackendSettings("openai", "http://[::1]:8080/v1", model="m", timeout_ms=300),
            },
        )
    )
    kinds = {name: type(member.backend) for name, member in made.items()}
    assert kinds == {"team": GessoBackend, "big": VllmBackend, "coder": AutoregressiveBackend}
    assert made["coder"].timeout_s == 0.3 and "0123" not in repr(vars(made["team"].backend))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"url": "http://team.example:8012"}, "plain = true"),
        ({"url": "team.example:8012"}, "write an address"),
        ({"url": "https://team.example:99999"}, "write an address"),
        ({"url": "file:///etc/passwd"}, "write an address"),
        ({"url": "https://team.example", "token_file": "nowhere"}, "does not exist"),
        ({"url": "https://team.example", "ca_file": "broken"}, "no certificates"),
    ],
)
def test_invalid_settings_of_backends_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken").write_text("no certificate")
    with pytest.raises(InputError, match=word):
        members(Routes({}, {"x": BackendSettings("gesso", **settings)}))
    if word == "plain = true":
        members(Routes({}, {"x": BackendSettings("gesso", plain=True, **settings)}))

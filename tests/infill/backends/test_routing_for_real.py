"""A service that sends requests on: to a real autoregressive server, and to another service over TLS; processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from infill.backends.backend import BackendDown, BackendRefused
from infill.backends.gesso import GessoBackend
from infill.backends.remote import Address, Remote
from infill.connection import CancellableConnection
from infill.findings import LintRequest
from infill.request import InfillRequest, InfillResult
from infill.service.client import ServiceClient
from infill.service.location import location_at
from infill.service.start import stop_service
from tests.infill.fakes import pocket_tokens, request
from tests.ports import free_port
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-at-least-sixteen-characters"
FUNCTION = "def add(one, other):\n    total = one + other\n    return §\n\n\nprint(add(1, 2))\n"
MISSING_SELF = "class A:\n    def a(self):\n        return 1\n\n    def b(self):\n        return a() + self.a()\n"
SLIP = LintRequest(MISSING_SELF, "python")  # found without a code model


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="gesso-test-") as name:
        yield Path(name)


PATIENT = """
from infill.backends import router
router.PAUSE_S = router.LONGEST_PAUSE_S = 600.0
from infill.cli.main import main
main()
"""  # a backend that failed is skipped until the end of the test, however long that takes


def started(folder: Path, monkeypatch: pytest.MonkeyPatch, config: str = "", *options: str) -> ServiceClient:
    """A ready service whose user has this config file."""
    config_folder = folder / "config" / "gesso"
    config_folder.mkdir(parents=True)
    (config_folder / "config.toml").write_text(config)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("GESSO_THREADS", "1")
    service = ServiceClient(
        location_at(folder / "run" / "gesso.sock"),
        arguments=("--idle-minutes", "5", *options),
        command=(sys.executable, "-c", PATIENT, "serve"),
    )
    service.connect()
    return service


def counts(service: ServiceClient) -> dict[str, float]:
    lines = service.metrics().splitlines()
    return dict((name, float(value)) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#"))


def backend_count(service: ServiceClient, name: str, outcome: str) -> float:
    return counts(service).get(f'gesso_backend_requests_total{{backend="{name}",outcome="{outcome}"}}', 0.0)


# an autoregressive server


@pytest.fixture(scope="module")
def coder(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """The address of `transformers serve` with a small random model, its process, and the model's name."""
    for name in ("fastapi", "accelerate"):
        pytest.importorskip(name, reason="`transformers serve` needs it")
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    model, tokens = folder / "coder", pocket_tokens().tokenizer
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=tokens.get_vocab_size(), **sizes)).save_pretrained(model)
    PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<eos>", pad_token="<pad>").save_pretrained(model)
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--port", str(port)]
    with (folder / "coder.log").open("wb") as log:
        process = subprocess.Popen([*command, "--device", "cpu"], stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is not None or _answers(f"http://127.0.0.1:{port}/health"))
        assert process.poll() is None, (folder / "coder.log").read_text()[-2000:]
        yield f"http://127.0.0.1:{port}/v1", process, model
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_an_autoregressive_server_answers_and_once_it_is_gone_the_local_model_does(
    coder: tuple[str, subprocess.Popen[bytes], Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, process, model = coder
    config = f"""
[routes]
inline = ["coder", "here"]
batch = "coder"
[backends.coder]
kind = "openai"
url = "{url}"
model = "{model}"
logprobs = false
timeout_ms = 120000
"""
    service = started(folder / "routed", monkeypatch, config)
    try:
        asked = request(FUNCTION, lines="one")
        only = ServiceClient(service.location, priority="batch").complete(asked)
        assert only.model == str(model), "a route with one backend returns its result, good or not"
        assert backend_count(service, "coder", "good") + backend_count(service, "coder", "poor") == 1
        first = service.complete(asked)
        assert first.model == "pocket" or all(one.shown for one in first.completions)
        assert service.complete(request(FUNCTION, lines="block")).model == "pocket", "blocks have no route"
        process.kill()
        process.wait(PATIENCE_S)
        assert service.complete(asked).model == "pocket"
        assert backend_count(service, "coder", "late") == 1
        assert service.complete(asked).model == "pocket"
        assert backend_count(service, "coder", "resting") == 1
    finally:
        stop_service(service.location)


# another service, over TLS


@pytest.fixture(scope="module")
def certificates(folder: Path) -> Path:
    """A folder with a certificate authority (ca.pem) and a certificate it signed for 127.0.0.1 (cert.pem, key.pem)."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    made = folder / "tls"
    made.mkdir()
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-x509"]
    new += ["-days", "2", "-keyout"]
    authority = [*new, "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign"]
    signed = [*new, "key.pem", "-out", "cert.pem", "-subj", "/CN=gesso", "-CA", "ca.pem", "-CAkey", "ca.key"]
    signed += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
    for command in (authority, signed):
        subprocess.run(command, cwd=made, check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def team(folder: Path, certificates: Path) -> Iterator[tuple[ServiceClient, str]]:
    """A service as a team has it, and its address."""
    (folder / "token").write_text(TOKEN + "\n")
    port = free_port()
    options = ("--port", str(port), "--token-file", str(folder / "token"))
    tls = ("--tls-cert", str(certificates / "cert.pem"), "--tls-key", str(certificates / "key.pem"))
    with pytest.MonkeyPatch.context() as patch:
        service = started(folder / "team", patch, "", *options, *tls)
    yield service, f"https://127.0.0.1:{port}"
    stop_service(service.location)


def ask(address: Address, asked: InfillRequest) -> InfillResult:
    return GessoBackend("team", Remote("team", address)).complete(asked, "inline", PATIENCE_S, CancellableConnection())


def test_a_service_over_tls_needs_its_token_and_a_trusted_certificate(
    team: tuple[ServiceClient, str], certificates: Path
) -> None:
    service, url = team
    asked = request(FUNCTION, caution=0.0)
    address = Address(url, TOKEN, certificates / "ca.pem")
    assert ask(address, asked).completions == service.complete(asked).completions
    assert GessoBackend("team", Remote("team", address)).lint(
        SLIP, "lint", PATIENCE_S, CancellableConnection()
    ) == service.lint(SLIP)
    with pytest.raises(BackendRefused, match="401"):
        ask(Address(url, TOKEN + "x", certificates / "ca.pem"), asked)
    with pytest.raises(BackendDown, match="certificate is not trusted"):
        ask(Address(url, TOKEN), asked)
    with pytest.raises(BackendDown, match="certificate is not trusted"):
        ask(Address(url.replace("127.0.0.1", "localhost"), TOKEN, certificates / "ca.pem"), asked)
    with pytest.raises(BackendDown):
        ask(Address(url.replace("https", "http"), TOKEN), asked)
    assert TOKEN not in service.location.log.read_text()


def test_a_service_sends_batch_and_lint_to_another_service(
    team: tuple[ServiceClient, str], certificates: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, url = team
    config = f"""
[routes]
batch = ["team", "here"]
lint = ["team", "here"]
[backends.team]
kind = "gesso"
url = "{url}"
token_file = "{folder / "token"}"
ca_file = "{certificates / "ca.pem"}"
timeout_ms = 120000
"""
    service = started(folder / "member", monkeypatch, config)
    try:
        before = counts(theirs).get('gesso_requests_total{priority="batch",outcome="shown"}', 0.0)
        asked = request(FUNCTION, caution=0.0)
        batch = ServiceClient(service.location, priority="batch")
        assert batch.complete(asked).completions == theirs.complete(asked).completions
        assert counts(theirs)['gesso_requests_total{priority="batch",outcome="shown"}'] == before + 1
        assert [one.replacement for one in service.lint(SLIP)] == ["self.a"]
        assert backend_count(service, "team", "good") == 2
        stop_service(theirs.location)
        assert batch.complete(asked).completions
        assert [one.replacement for one in service.lint(SLIP)] == ["self.a"]
        assert backend_count(service, "team", "late") == 1 and backend_count(service, "team", "resting") == 1
        assert json.dumps(TOKEN) not in service.location.log.read_text()
    finally:
        stop_service(service.location)

"""Doctor: every fault is told from the others, in one line with its fix and the right exit code."""

from __future__ import annotations

import dataclasses
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from engines.fake import fake_bundle
from labelmint.cli import main
from service.config import TlsFiles
from tests.service.harness import FakeModel, served
from tests.service.identities import TOKENS, config, write_identity

if sys.version_info >= (3, 11):
    pass

Captured = pytest.CaptureFixture[str]


def examined(capsys: Captured, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines, which are one for each check."""
    code = main(["doctor", "--target", *arguments])
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert all(line.startswith(("ok   ", "warn ", "fail ")) for line in lines), lines
    return code, lines


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABELMINT_TOKEN", raising=False)


def test_a_good_server_passes_and_every_check_is_shown(capsys: Captured) -> None:
    with served() as server:
        code, lines = examined(capsys, f"localhost:{server.server.port}")
    assert code == 0
    names = [line[5:].split(":")[0] for line in lines]
    assert names == [
        "versions", "protobuf", "extras", "memory", "connection", "token", "health", "server",
        "model fake", "sizes fake", "sample fake",
    ]  # fmt: skip
    assert all(line.startswith("ok") for line in lines if "memory" not in line), lines


def test_a_server_with_the_service_alone_passes(capsys: Captured, target: str) -> None:
    code, lines = examined(capsys, target)
    assert code == 0
    assert any(line.startswith("warn health") for line in lines)
    assert "ok   server: version unknown: the server does not report it" in lines


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("localhost:1", "nothing listens on localhost port 1"),
        ("dns:///nowhere.invalid:80", "the name nowhere.invalid is unknown"),
    ],
)
def test_no_server_is_3(capsys: Captured, target: str, found: str) -> None:
    code, lines = examined(capsys, target)
    assert code == 3
    assert lines[-1].startswith("fail connection") and found in lines[-1]


@contextmanager
def talker(word: bytes) -> Iterator[int]:
    """The port of a server that says a word to everybody and hangs up."""
    with socket.create_server(("localhost", 0)) as listening:

        def talk() -> None:
            while True:
                try:
                    connected, _ = listening.accept()
                except OSError:
                    return
                with connected:
                    connected.sendall(word)

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_server_that_does_not_speak_grpc_is_3(capsys: Captured) -> None:
    with talker(b"220 mail ready\r\n") as port:
        code, lines = examined(capsys, f"localhost:{port}")
    assert code == 3
    assert "does not speak gRPC" in lines[-1]


@dataclasses.dataclass(frozen=True)
class Identities:
    server: TlsFiles
    client: TlsFiles
    stranger: TlsFiles  # of another authority
    authorities: str
    others: str


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    authority, other = trustme.CA(), trustme.CA()
    folders = [tmp_path_factory.mktemp(name) for name in ("server", "client", "stranger")]
    server, client = write_identity(authority, folders[0]), write_identity(authority, folders[1])
    stranger = write_identity(other, folders[2], "stranger")
    return Identities(
        server, client, stranger, str(folders[0] / "ca.pem"), str(folders[2] / "ca.pem")
    )


def shown(files: TlsFiles) -> tuple[str, ...]:
    return ("--certificate", str(files.certificate), "--private-key", str(files.key))


@pytest.mark.long
def test_tls_faults_are_told_apart(capsys: Captured, identities: Identities) -> None:
    trusting = ("--authorities", identities.authorities)
    with served(config=config(tls=identities.server)) as server:
        port = server.server.port
        faults: list[tuple[tuple[str, ...], str, str]] = [
            ((f"localhost:{port}",), "the server speaks TLS", "--authorities"),
            ((f"localhost:{port}", "--tls"), "certificate is refused", "--authorities"),
            (
                (f"localhost:{port}", "--authorities", identities.others),
                "certificate is refused",
                "--authorities",
            ),
            ((f"127.0.0.1:{port}", *trusting), "mismatch", "that the certificate names"),
        ]
        for arguments, found, fix in faults:
            code, lines = examined(capsys, *arguments)
            assert code == 3, lines
            assert lines[-1].startswith("fail connection")
            assert found in lines[-1] and fix in lines[-1], lines[-1]
        code, lines = examined(capsys, f"localhost:{port}", *trusting)
        assert code == 0, lines
        assert f"ok   connection: localhost:{port} answers over TLS" in lines


def test_a_client_certificate_that_is_missing_or_strange_is_told(
    capsys: Captured, identities: Identities
) -> None:
    mutual = dataclasses.replace(identities.server, client_authorities=Path(identities.authorities))
    trusting = ("--authorities", identities.authorities)
    with served(config=config(tls=mutual)) as server:
        target = f"localhost:{server.server.port}"
        for arguments, found in (
            (trusting, "may need a client certificate"),
            ((*trusting, *shown(identities.stranger)), "may refuse this client's certificate"),
        ):
            code, lines = examined(capsys, target, *arguments)
            assert code == 3
            assert found in lines[-1], lines[-1]
            assert "--certificate" in lines[-1]
        assert examined(capsys, target, *trusting, *shown(identities.client))[0] == 0


def test_tls_to_a_plain_server_is_told(capsys: Captured) -> None:
    with served() as server:
        code, lines = examined(capsys, f"localhost:{server.server.port}", "--tls")
    assert code == 3
    assert "the server speaks plain text" in lines[-1] and "leave out --tls" in lines[-1]


def test_tokens_are_told_from_connections(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"trainer {TOKENS['trainer']}\n")
    with served(config=config(token_file=tokens)) as server:
        target = f"localhost:{server.server.port}"
        code, lines = examined(capsys, target)
        assert code == 4
        assert lines[-2].startswith("ok   connection")
        assert lines[-1].startswith("fail token: none sent") and "LABELMINT_TOKEN" in lines[-1]
        monkeypatch.setenv("LABELMINT_TOKEN", "wrong")
        code, lines = examined(capsys, target)
        assert (code, lines[-1][:19]) == (4, "fail token: refused")
        assert "wrong" not in lines[-1]
        monkeypatch.setenv("LABELMINT_TOKEN", TOKENS["trainer"])
        code, lines = examined(capsys, target)
        assert code == 0
        assert "ok   token: accepted" in lines


def test_a_server_without_models_is_1(capsys: Captured) -> None:
    with served([]) as server:
        code, lines = examined(capsys, f"localhost:{server.server.port}")
    assert code == 1
    assert lines[-1].startswith("fail models: the server has none")


def test_each_model_is_asked_for_a_sample(capsys: Captured) -> None:
    good, bare = FakeModel(), FakeModel("bare", fake_bundle(resolution=16, heads=False))
    with served([good, bare]) as server:
        code, lines = examined(capsys, f"localhost:{server.server.port}")
    assert code == 0
    (bare_line,) = [line for line in lines if line.startswith("warn model bare")]
    assert "has no uncertainty score: filters are refused; use all samples" in bare_line
    assert sum(line.startswith("ok   sample") for line in lines) == 2

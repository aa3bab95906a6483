"""Doctor: every fault is told from the others, in one line with its fix and the right exit code."""

from __future__ import annotations

import dataclasses
import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
import trustme
from packaging.requirements import Requirement

from engines.fake import fake_bundle
from labelmint.cli import main
from labelmint.doctor.check import Check, State
from labelmint.doctor.connection import endpoint_from_target
from labelmint.doctor.machine import EXTRAS, KEEP_BYTES, extras_check, memory_check, protobuf_check
from labelmint.doctor.server import filter_check, size_check
from labelmint.model import Model, model_from_proto
from labelmint.verbs.doctor import line_from_check
from service.config import TlsFiles
from tests.client.scripted_service import MODEL
from tests.service.harness import FakeModel, served
from tests.service.identities import TOKENS, config, write_identity

if sys.version_info >= (3, 11):
    import tomllib

CHECKOUT = Path(__file__).resolve().parents[2]
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
    assert "ok   server: does not tell its version" in lines


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("localhost:1", "nothing listens on localhost port 1"),
        ("dns:///nowhere.invalid:80", "the name nowhere.invalid is unknown"),
        ("localhost:99999", "99999"),
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
            ((f"127.0.0.1:{port}", *trusting), "mismatch", "by a name that its certificate has"),
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
            (trusting, "wants a client certificate"),
            ((*trusting, *shown(identities.stranger)), "refuses this client's certificate"),
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
    assert lines[-1].startswith("fail models: none is served")


def test_each_model_is_asked_for_a_sample(capsys: Captured) -> None:
    good, bare = FakeModel(), FakeModel("bare", fake_bundle(resolution=16, heads=False))
    with served([good, bare]) as server:
        code, lines = examined(capsys, f"localhost:{server.server.port}")
    assert code == 0
    assert any(line.startswith("warn model bare") and "no score" in line for line in lines)
    assert sum(line.startswith("ok   sample") for line in lines) == 2


@pytest.mark.parametrize(
    ("target", "endpoint"),
    [
        ("host:1", ("host", 1)),
        ("dns:///name.example:50051", ("name.example", 50051)),
        ("dns://8.8.8.8/name:5", ("name", 5)),
        ("dns:name:5", ("name", 5)),
        ("[::1]:7", ("::1", 7)),
        ("ipv4:10.0.0.1:9", ("10.0.0.1", 9)),
        ("ipv6:[fe80::1]:9", ("fe80::1", 9)),
        ("ipv4:10.0.0.1:9,10.0.0.2:9", None),
        ("unix:/run/labelmint", None),
        ("host", None),
        ("::1", None),
        ("", None),
    ],
)
def test_endpoints_are_read_off_targets(target: str, endpoint: tuple[str, int] | None) -> None:
    assert endpoint_from_target(target) == endpoint


def model(**changes: object) -> Model:
    values = {**vars(model_from_proto(MODEL)), **changes}
    return Model(**values)


def test_models_that_cannot_be_filtered_or_do_not_fit_are_warned_of() -> None:
    assert filter_check(model()).state is State.OK
    assert "calibrate" in filter_check(model(calibrated=False)).fix
    assert filter_check(model(score_source="")).state is State.WARN
    assert size_check(model()).state is State.OK
    large = size_check(model(image_size=(1024, 1024), label_size=(1024, 1024)))
    assert large.state is State.WARN and "max_message_bytes=" in large.fix
    huge = size_check(model(image_size=(8192, 8192), label_size=(8192, 8192)))
    assert huge.state is State.WARN and "64 MiB" in huge.found


def test_a_line_stays_one_line_whatever_a_server_says() -> None:
    line = line_from_check(Check("model \x1b[2J\nok", State.WARN, "a\r\nb\x00", "c\u2028d"))
    assert len(line.splitlines()) == 1
    assert click.unstyle(line).isprintable()


def test_slow_protobuf_and_missing_extras_are_told() -> None:
    assert protobuf_check("1.2", "upb").state is State.OK
    assert protobuf_check("1.2", "python").state is State.WARN
    check = extras_check({"datasets": ["webdataset"], "torch": ["torch"]})
    assert check.state is State.OK
    assert "datasets lacks webdataset" in check.found
    assert check.fix.endswith("pip install 'labelmint[datasets,torch]'")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is of Python 3.11")
def test_the_extras_are_those_of_the_package() -> None:
    document = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    modules = {"Pillow": "PIL", "Jinja2": "jinja2"}
    for extra, names in EXTRAS.items():
        requirements = document["project"]["optional-dependencies"][extra]
        brought = [Requirement(each).name for each in requirements]
        assert sorted(modules.get(name, name) for name in brought) == sorted(names)


def test_memory_is_judged_by_the_bytes_that_are_faulted_in() -> None:
    assert memory_check(0, 4096).state is State.OK
    assert memory_check(1024, 4096).state is State.WARN
    assert memory_check(17, 65536).state is State.WARN
    assert str(KEEP_BYTES) in memory_check(4096, 4096).fix


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
def test_the_fix_for_memory_is_one() -> None:
    code = (
        "import resource; from labelmint.doctor.machine import *;"
        "print(memory_check(faults_per_message(), resource.getpagesize()).state.value)"
    )
    found = []
    for settings in ({}, dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"))):
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))
        }
        environment |= {name: str(KEEP_BYTES) for name in settings}
        run = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        found.append(run.stdout.strip())
    assert found == ["warn", "ok"]

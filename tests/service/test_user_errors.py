"""A user's mistakes: a typed exception, and from the command line one clear line and a code."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from engines.fake import fake_bundle
from labelmint import Client, Patience, Tls
from labelmint.cli import main
from labelmint.errors import Denied, Invalid, LabelmintError, NotFound, NotReady, Unreachable
from labelmint.wire.faults import fault_of_endpoint
from service.config import Config
from tests.service.harness import FakeModel, served
from tests.service.identities import config, write_identity

Captured = pytest.CaptureFixture[str]
BARE = FakeModel("bare", fake_bundle(resolution=16, heads=False))


@dataclass(frozen=True)
class Servers:
    """Where a user may end up, as 127.0.0.1:PORT."""

    plain: str
    metrics: str  # HTTP, not gRPC
    encrypted: str
    authorities: Path  # of `encrypted`
    strangers: Path  # nobody's


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder, other = tmp_path_factory.mktemp("tls"), tmp_path_factory.mktemp("other") / "ca.pem"
    tls = write_identity(trustme.CA(), folder, "127.0.0.1")
    trustme.CA().cert_pem.write_to_path(str(other))
    with served([BARE]) as plain, served([BARE], config(tls=tls)) as encrypted:
        yield Servers(
            f"127.0.0.1:{plain.server.port}",
            f"127.0.0.1:{plain.server.metrics_port}",
            f"127.0.0.1:{encrypted.server.port}",
            folder / "ca.pem",
            other,
        )


MISTAKES: dict[str, tuple[Callable[[Servers], tuple[str, Path | None]], str]] = {
    "server down": (lambda s: ("127.0.0.1:1", None), "no server listens on this port"),
    "wrong port": (lambda s: (s.metrics, None), "check the port"),
    "unknown name": (lambda s: ("nobody.invalid:1", None), "the host name has no address"),
    "plain text to TLS": (lambda s: (s.encrypted, None), "whether it needs TLS"),
    "TLS to plain text": (lambda s: (s.plain, s.authorities), "leave TLS out"),
    "another authority": (lambda s: (s.encrypted, s.strangers), "from no trusted authority"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_server_that_is_not_reached_is_told_in_one_line(
    servers: Servers, mistake: str, capsys: Captured
) -> None:
    choose, words = MISTAKES[mistake]
    target, authorities = choose(servers)
    tls = Tls(authorities) if authorities else None
    with Client(target, tls=tls, patience=Patience(connect_s=0.0)) as client:
        with pytest.raises(Unreachable, match=words):
            client.models()
        with pytest.raises(Unreachable, match=words):
            next(client.stream())
    flags = ["--authorities", str(authorities)] if authorities else []
    assert main(["models", "--target", target, *flags]) == 3
    said = capsys.readouterr().err
    assert words in said and target in said and said.count("\n") == 1


@pytest.mark.parametrize("listens", ["127.0.0.1", "[::1]"])
def test_a_name_of_which_one_address_listens_is_told_by_that_one(
    tmp_path: Path, listens: str
) -> None:
    """gRPC often names the other, which refused: it would be told that no server listens."""
    tls = write_identity(trustme.CA(), tmp_path)
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    own, other = Tls(tmp_path / "ca.pem"), Tls(tmp_path / "other.pem")
    at = Config((), f"{listens}:0", metrics_port=0)
    with served([BARE], at) as plain, served([BARE], replace(at, tls=tls)) as encrypted:
        plain_port, encrypted_port = plain.server.port, encrypted.server.port
        assert plain.server.metrics_port
        for port, given, words in (
            (plain_port, own, "plain text, and the client spoke TLS|leave TLS out"),
            (encrypted_port, None, "speaks TLS, and the client spoke plain|whether it needs TLS"),
            (encrypted_port, other, "certificate is refused|from no trusted authority"),
            (plain.server.metrics_port, None, "does not speak gRPC|check the port"),
        ):
            target = f"localhost:{port}"
            with Client(target, tls=given, patience=Patience(connect_s=0.0)) as client:
                for _ in range(3):
                    with pytest.raises(Unreachable, match=words) as caught:
                        client.models()
                    assert "no server listens" not in str(caught.value)
                    with pytest.raises(Unreachable, match=words):
                        next(client.stream())
            if port == plain.server.metrics_port:
                continue  # which waits for the end of a request, as `doctor` then does
            fault = fault_of_endpoint(("localhost", port), given)  # what `doctor` says
            assert fault and re.search(words, f"{fault.found}; {fault.fix}")
        assert fault_of_endpoint(("localhost", plain_port), None) is None
        assert fault_of_endpoint(("localhost", encrypted_port), own) is None


REQUESTS: dict[str, tuple[dict[str, Any], type[LabelmintError], str]] = {
    "a head it lacks": ({"count": 1, "outputs": ["keypoints"]}, NotReady, "keypoints"),
    "too large a batch": ({"count": 100_000}, Invalid, "the limit is"),
    "another model": ({"count": 1, "model": "car"}, NotFound, "'car'; this server has bare"),
    "another bundle": ({"count": 1, "bundle_id": "sha256:1"}, NotReady, "sha256:1"),
}


@pytest.mark.parametrize("asked", REQUESTS)
def test_a_request_that_cannot_succeed_is_refused_with_a_reason(
    servers: Servers, asked: str
) -> None:
    options, kind, words = REQUESTS[asked]
    with Client(servers.plain) as client, pytest.raises(kind, match=words):
        client.generate(**options)


def test_a_refused_command_ends_with_4_and_one_line(
    servers: Servers, capsys: Captured, tmp_path: Path
) -> None:
    out = tmp_path / "sheet.png"
    arguments = ["--target", servers.plain, "--out", str(out), "--model", "car"]
    assert main(["preview", *arguments]) == 4
    said = capsys.readouterr().err
    assert "'car'; this server has bare" in said and said.count("\n") == 1
    assert not out.exists()


def test_a_certificate_for_another_name_is_told_and_its_name_can_be_given(
    tmp_path: Path, capsys: Captured
) -> None:
    tls = write_identity(trustme.CA(), tmp_path, "labels.example")
    with served([BARE], config(tls=tls)) as server:
        arguments = ["models", "--target", f"127.0.0.1:{server.server.port}"]
        arguments += ["--authorities", str(tmp_path / "ca.pem")]
        assert main(arguments) == 3
        assert "--server-name" in capsys.readouterr().err
        assert main([*arguments, "--server-name", "labels.example"]) == 0
        assert main(["doctor", *arguments[1:], "--server-name", "labels.example"]) == 0


def test_a_wrong_token_is_denied(
    tokens: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served([BARE], config(token_file=tokens)) as server:
        target = f"localhost:{server.server.port}"
        with Client(target, token="x" * 20) as client, pytest.raises(Denied, match="token"):
            client.models()
        assert main(["models", "--target", target]) == 4
        assert "LABELMINT_TOKEN" in capsys.readouterr().err
        monkeypatch.setenv("LABELMINT_TOKEN", "x" * 20)
        assert main(["models", "--target", target]) == 4
        said = capsys.readouterr().err
        assert "token" in said and "x" * 20 not in said and said.count("\n") == 1

"""TLS and mutual TLS, with certificates that are renewed while the server runs."""

import itertools
import logging
import os
import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from engines.fake import FakeOptions
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.config import Config, ServerLimits, TlsFiles
from service.errors import StartError
from service.server import is_loopback
from service.tls import credentials_from_files
from tests.hangs import HANG_S
from tests.service.harness import FakeModel, refusal, served
from tests.service.identities import TWO, config, write_identity


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextmanager
def secured(port: int, ca: bytes, key: bytes | None = None, chain: bytes | None = None) -> Any:
    credentials = grpc.ssl_channel_credentials(ca, key, chain)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"localhost:{port}", credentials, options) as channel:
        yield LabelServiceStub(channel)


def ca_pem(authority: trustme.CA) -> bytes:
    return bytes(authority.cert_pem.bytes())


def test_tls_serves_those_who_trust_it_and_nobody_in_plain_text(
    authority: trustme.CA, tmp_path: Path
) -> None:
    tls = write_identity(authority, tmp_path)
    with served(config=config(tls=tls)) as server:
        with secured(server.server.port, ca_pem(authority)) as stub:
            assert len(stub.GenerateSamples(TWO, timeout=HANG_S).batch.indices) == 2
        with secured(server.server.port, ca_pem(trustme.CA())) as stub:
            refused = refusal(lambda: stub.GenerateSamples(TWO, timeout=HANG_S))
            assert refused.code is grpc.StatusCode.UNAVAILABLE
        assert refusal(lambda: server.generate(count=1)).code is grpc.StatusCode.UNAVAILABLE


def test_mutual_tls_turns_away_clients_without_a_certificate_of_its_authorities(
    authority: trustme.CA, tmp_path: Path
) -> None:
    files = write_identity(authority, tmp_path)
    tls = TlsFiles(files.certificate, files.key, tmp_path / "ca.pem")

    def shown(by: trustme.CA) -> dict[str, bytes]:
        own = by.issue_cert("trainer.example", common_name="trainer")
        return {"key": own.private_key_pem.bytes(), "chain": own.cert_chain_pems[0].bytes()}

    limits = ServerLimits(max_client_streams=1)
    slow = FakeModel(options=FakeOptions(seconds_per_run=0.05))
    with served([slow], config(tls=tls, limits=limits)) as server:
        ca, port = ca_pem(authority), server.server.port
        with secured(port, ca, **shown(authority)) as stub:
            call = stub.StreamSamples(pb.StreamSamplesRequest(), timeout=HANG_S)
            next(iter(call))
            refused = refusal(lambda: stub.GenerateSamples(TWO, timeout=HANG_S))
            assert "client trainer " in refused.message  # named by its certificate
            call.cancel()
        for stranger in ({}, shown(trustme.CA())):
            with secured(port, ca, **stranger) as stub:
                refused = refusal(partial(stub.GenerateSamples, TWO, timeout=HANG_S))
                assert refused.code is grpc.StatusCode.UNAVAILABLE


def test_a_renewed_certificate_is_shown_at_the_next_connection(
    authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = trustme.CA()
    with served(config=config(tls=write_identity(authority, tmp_path))) as server:
        port = server.server.port

        def works_with(trusted: trustme.CA) -> bool:
            with secured(port, ca_pem(trusted)) as stub:
                try:
                    return bool(stub.GenerateSamples(TWO, timeout=HANG_S).batch.indices)
                except grpc.RpcError:
                    return False

        assert works_with(authority) and not works_with(other)
        write_identity(other, tmp_path)
        assert works_with(other) and not works_with(authority)
        shutil.copy(tmp_path / "ca.pem", tmp_path / "key.pem")  # no key, and not its own
        assert works_with(other)
    assert "the old certificate stays in use" in caplog.text
    assert "PRIVATE" not in caplog.text


@pytest.mark.parametrize(
    ("spoilt", "how"),
    [
        *itertools.product(
            ("certificate", "key", "client_authorities"), ("missing", "a pipe", "garbage")
        ),
        ("certificate", "another's"),
        ("key", "another's"),
    ],
)
def test_unusable_tls_files_end_the_start_in_one_line(
    authority: trustme.CA, tmp_path: Path, spoilt: str, how: str
) -> None:
    files = write_identity(authority, tmp_path)
    tls = TlsFiles(files.certificate, files.key, tmp_path / "ca.pem")
    path: Path = getattr(tls, spoilt)
    if how == "missing":
        path.unlink()
    elif how == "a pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "garbage":
        path.write_text("no PEM")
    else:
        (tmp_path / "other").mkdir()
        other = write_identity(authority, tmp_path / "other")
        shutil.copy(getattr(other, spoilt), path)
    with pytest.raises(StartError) as caught:
        credentials_from_files(tls)
    message = str(caught.value)
    assert "\n" not in message and "PRIVATE" not in message
    assert str(path) in message


def test_a_public_address_without_tls_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING),
        served(config=Config(bundles=(), listen="0.0.0.0:0")) as server,
    ):
        assert server.generate(count=1).batch.indices
    assert "unencrypted" in caplog.text and "--tls-certificate" in caplog.text


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("0.0.0.0:1", False),
     ("[::]:1", False), ("10.1.2.3:1", False), ("example.org:1", False)],
)  # fmt: skip
def test_addresses_of_this_machine_alone_are_told_from_public_ones(
    listen: str, loopback: bool
) -> None:
    assert is_loopback(listen) is loopback

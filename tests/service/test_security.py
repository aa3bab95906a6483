"""Who may call: TLS, mutual TLS and tokens, and what each client may take."""

import itertools
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from engines.fake import FakeOptions
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.config import Config, Limits, TlsFiles
from service.errors import StartError
from service.rate import MAX_CLIENTS, RequestRate
from service.server import is_loopback
from service.tls import credentials_from_files
from service.tokens import Tokens
from tests.service.harness import FakeModel, Refusal, RunningServer, refusal, served

TOKENS = {"trainer": "t" * 20, "night-job": "n" * 20}
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
TWO = pb.GenerateSamplesRequest(query=pb.SampleQuery(count=2))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("# who\n\n" + "".join(f"{n} {t}\n" for n, t in TOKENS.items()))
    return path


def write_identity(authority: trustme.CA, folder: Path, name: str = "localhost") -> TlsFiles:
    """A certificate and its key, replaced as a renewal does."""
    identity = authority.issue_cert(name, common_name=name)
    new = folder / "new"
    new.mkdir()
    identity.private_key_pem.write_to_path(str(new / "key.pem"))
    for blob in identity.cert_chain_pems:
        blob.write_to_path(str(new / "certificate.pem"), append=True)
    authority.cert_pem.write_to_path(str(new / "ca.pem"))
    for path in list(new.iterdir()):
        os.replace(path, folder / path.name)
    new.rmdir()
    return TlsFiles(folder / "certificate.pem", folder / "key.pem")


def config(**changes: Any) -> Config:
    return Config(bundles=(), listen="localhost:0", **changes)


@contextmanager
def secured(port: int, ca: bytes, key: bytes | None = None, chain: bytes | None = None) -> Any:
    credentials = grpc.ssl_channel_credentials(ca, key, chain)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"localhost:{port}", credentials, options) as channel:
        yield LabelServiceStub(channel)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def ca_pem(authority: trustme.CA) -> bytes:
    return bytes(authority.cert_pem.bytes())


def test_tls_serves_those_who_trust_it_and_nobody_in_plain_text(
    authority: trustme.CA, tmp_path: Path
) -> None:
    tls = write_identity(authority, tmp_path)
    with served(config=config(tls=tls)) as server:
        with secured(server.server.port, ca_pem(authority)) as stub:
            assert len(stub.GenerateSamples(TWO, timeout=10).batch.indices) == 2
        with secured(server.server.port, ca_pem(trustme.CA())) as stub:
            refused = refusal(lambda: stub.GenerateSamples(TWO, timeout=10))
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

    limits = Limits(max_client_streams=1)
    slow = FakeModel(options=FakeOptions(seconds_per_run=0.05))
    with served([slow], config(tls=tls, limits=limits)) as server:
        ca, port = ca_pem(authority), server.server.port
        with secured(port, ca, **shown(authority)) as stub:
            call = stub.StreamSamples(pb.StreamSamplesRequest(), timeout=10)
            next(iter(call))
            refused = refusal(lambda: stub.GenerateSamples(TWO, timeout=10))
            assert "client trainer " in refused.message  # named by its certificate
            call.cancel()
        for stranger in ({}, shown(trustme.CA())):
            with secured(port, ca, **stranger) as stub:
                refused = refusal(partial(stub.GenerateSamples, TWO, timeout=10))
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
                    return bool(stub.GenerateSamples(TWO, timeout=10).batch.indices)
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
        *itertools.product(("certificate", "key", "client_authorities"), ("missing", "garbage")),
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


def test_only_token_holders_may_call_but_health_answers_all(tokens: Path) -> None:
    with served(config=config(token_file=tokens)) as server:
        unary, stream = server.stub.GenerateSamples, server.stub.StreamSamples
        good = unary(TWO, timeout=10, metadata=bearer(TOKENS["trainer"]))
        assert len(good.batch.indices) == 2
        request = pb.StreamSamplesRequest(query=TWO.query)
        messages = stream(request, timeout=10, metadata=bearer(TOKENS["night-job"]))
        assert sum(len(m.batch.indices) for m in messages) == 2
        for metadata in (
            (), bearer(""), bearer("t" * 19), bearer("t" * 21), bearer("trainer"),
            (("authorization", TOKENS["trainer"]),), (("authorization", "Basic dDp0"),),
        ):  # fmt: skip
            for call in (unary, stream):
                refused = refusal(partial(answers, call, metadata))
                assert refused.code is UNAUTHENTICATED
                assert not any(token in refused.message for token in TOKENS.values())
        reflection: Any = server.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        assert refusal(lambda: list(reflection(iter([b""]), timeout=10))).code is UNAUTHENTICATED
        health: Any = health_pb2_grpc.HealthStub(server.channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_tokens_change_with_their_file_and_a_broken_one_changes_nothing(
    tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = Tokens(tokens)
    assert known.name_of(TOKENS["trainer"]) == "trainer"
    tokens.write_text("fresh " + "f" * 16)
    assert known.name_of("f" * 16) == "fresh" and known.name_of(TOKENS["trainer"]) is None
    tokens.write_text("fresh short")
    assert known.name_of("f" * 16) == "fresh"
    tokens.unlink()
    assert known.name_of("f" * 16) == "fresh"
    assert "line 1" in caplog.text and "short" not in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["no token", "NAME TOKEN"]),
        ("# nothing\n", ["no token"]),
        ("\n\na " + "x" * 15, ["line 3", "15 characters", "16"]),
        ("a", ["line 1", "1 words"]),
        ("a b " + "x" * 20, ["line 1", "3 words"]),
        ("ä " + "x" * 20, ["line 1", "name"]),
        (f"a {'x' * 20}\na {'y' * 20}", ["line 2", "already"]),
        (f"a {'x' * 20}\nb {'x' * 20}", ["one token for two names"]),
        ("a " + "x" * (1 << 20), ["over 1048576 bytes"]),
    ],
)
def test_a_broken_token_file_ends_the_start_in_one_line(
    tmp_path: Path, content: str, words: list[str]
) -> None:
    path = tmp_path / "tokens"
    path.write_text(content)
    with pytest.raises(StartError) as caught:
        Tokens(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and "xxx" not in message
    assert all(word in message for word in words), message


def answers(call: Any, metadata: Any) -> None:
    answer = call(TWO, timeout=10, metadata=metadata)
    if isinstance(answer, Iterator):
        list(answer)


def limited(**limits: Any) -> Any:
    slow = FakeModel(options=FakeOptions(seconds_per_run=0.05))
    return served([slow], config(limits=Limits(**limits)))


def retry_s(refused: Refusal) -> float:
    status: Any = rpc_status.from_call(refused.error)
    info = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    milliseconds = info.retry_delay.ToMilliseconds()
    assert refused.trailers["grpc-retry-pushback-ms"] == str(milliseconds)
    return float(milliseconds / 1000)


@pytest.fixture
def two_clients(tokens: Path) -> Iterator[Callable[..., Any]]:
    """A context of a server with limits and of two clients' metadata."""

    @contextmanager
    def start(**limits: Any) -> Iterator[tuple[RunningServer, Any, Any]]:
        slow = FakeModel(options=FakeOptions(seconds_per_run=0.05))
        with served([slow], config(limits=Limits(**limits), token_file=tokens)) as server:
            yield server, bearer(TOKENS["trainer"]), bearer(TOKENS["night-job"])

    yield start


def test_one_client_cannot_take_every_stream(two_clients: Any) -> None:
    with two_clients(max_client_streams=2) as (server, one, two):
        calls = [
            server.stub.StreamSamples(pb.StreamSamplesRequest(), timeout=20, metadata=one)
            for _ in range(2)
        ]
        for call in calls:
            next(iter(call))
        refused = refusal(lambda: server.stub.GenerateSamples(TWO, timeout=10, metadata=one))
        assert refused.code is EXHAUSTED and retry_s(refused) > 0
        assert "client trainer" in refused.message and "max_client_streams is 2" in refused.message
        assert server.stub.GenerateSamples(TWO, timeout=10, metadata=two).batch.indices
        calls[0].cancel()
        assert eventually(lambda: server.stub.GenerateSamples(TWO, timeout=10, metadata=one))
        calls[1].cancel()


def test_one_client_cannot_take_all_samples_under_way(two_clients: Any) -> None:
    with two_clients(max_client_inflight_samples=40) as (server, one, two):
        call = server.stub.StreamSamples(pb.StreamSamplesRequest(), timeout=20, metadata=one)
        next(iter(call))
        refused = refusal(
            lambda: list(
                server.stub.StreamSamples(pb.StreamSamplesRequest(), timeout=10, metadata=one)
            )
        )
        assert refused.code is EXHAUSTED
        assert "max_client_inflight_samples 40" in refused.message
        other = server.stub.StreamSamples(pb.StreamSamplesRequest(), timeout=20, metadata=two)
        assert next(iter(other)).batch.indices
        call.cancel()
        other.cancel()


def test_a_client_that_calls_too_often_is_told_when_to_come_again(two_clients: Any) -> None:
    with two_clients(max_client_requests_per_s=4) as (server, one, two):

        def ask(metadata: Any) -> Any:
            return server.stub.ListModels(pb.ListModelsRequest(), timeout=10, metadata=metadata)

        for _ in range(4):
            ask(one)
        refused = refusal(lambda: [ask(one) for _ in range(20)])
        assert refused.code is EXHAUSTED
        assert "max_client_requests_per_s" in refused.message
        wait = retry_s(refused)
        assert 0 < wait <= 0.26
        ask(two)
        time.sleep(wait + 0.01)
        ask(one)


def test_a_message_has_no_more_samples_than_the_limit() -> None:
    with limited(max_message_samples=5) as server:
        assert max(len(m.batch.indices) for m in server.stream(count=20)) <= 5
        refused = refusal(lambda: list(server.stream(max_message_samples=6)))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "max_message_samples is 6; the limit is 5" in refused.message
        refused = refusal(lambda: server.generate(count=6))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "can have 6 samples, the limit is 5" in refused.message


def test_rates_are_per_client_refill_evenly_and_forget_the_oldest() -> None:
    rate = RequestRate(2)
    granted = [at / 10 for at in range(100) if not rate.wait_s("a", at / 10)]
    assert granted[:2] == [0, 0.1] and 20 <= len(granted) <= 22
    assert rate.wait_s("b", 10) == 0
    for number in range(2 * MAX_CLIENTS):
        rate.wait_s(str(number), 10)
    assert len(rate._buckets) == MAX_CLIENTS
    assert RequestRate(0).wait_s("a", 0) == 0


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("0.0.0.0:1", False),
     ("[::]:1", False), ("10.1.2.3:1", False), ("example.org:1", False)],
)  # fmt: skip
def test_addresses_of_this_machine_alone_are_told_from_public_ones(
    listen: str, loopback: bool
) -> None:
    assert is_loopback(listen) is loopback


def test_a_public_address_without_tls_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING),
        served(config=Config(bundles=(), listen="0.0.0.0:0")) as server,
    ):
        assert server.generate(count=1).batch.indices
    assert "not encrypted" in caplog.text and "--tls-certificate" in caplog.text


def eventually(work: Callable[[], Any]) -> bool:
    """Whether work succeeds within a few seconds, refused or not at first."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            work()
            return True
        except grpc.RpcError:
            time.sleep(0.02)
    return False

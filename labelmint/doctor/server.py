"""Checks of a server that answers: health, version, models, message sizes, one sample per model.

Enter: a client and its target. Leave: checks, a few for the server and three for each model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

import labelmint
from labelmint.client import Client
from labelmint.doctor.connection import Check, CheckStatus
from labelmint.errors import LabelmintError
from labelmint.model import Model
from labelmint.wire.channel import MAX_RECEIVED_BYTES, Tls, metadata_from_token, open_channel

_CALL_S = 10.0
_DEFAULT_MESSAGE_BYTES = (4 << 20) - (16 << 10)  # size of a message without max_message_bytes
_HEALTH = {b"": "UNKNOWN", b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}


def server_checks(client: Client, target: str, tls: Tls | None) -> Iterator[Check]:
    """Health, version, and for each model its filter, its message sizes and one sample."""
    channel = open_channel(target, tls)
    try:
        yield _health_check(channel)
        yield _version_check(channel)
    finally:
        channel.close()
    try:
        models = client.models()
    except LabelmintError as error:
        yield Check("models", CheckStatus.FAIL, str(error), "run doctor again", error)
        return
    if not models:
        yield Check(
            "models", CheckStatus.FAIL, "the server has none", "start it with --bundle NAME=DIR"
        )
    for model in models:
        yield filter_check(model)
        yield size_check(model)
        yield _sample_check(client, model)


def _answer(channel: grpc.Channel, method: str) -> bytes:
    """Serialized answer of a unary method to an empty request; raises grpc.RpcError."""
    call: Any = channel.unary_unary(method)
    answer: bytes = call(b"", timeout=_CALL_S, metadata=metadata_from_token(None))
    return answer


def _health_check(channel: grpc.Channel) -> Check:
    # Bytes instead of grpc_health: nothing else in this package needs that dependency.
    try:
        answer = _answer(channel, "/grpc.health.v1.Health/Check")
    except grpc.RpcError as error:
        fix = "this client works without; Kubernetes and load balancers need it"
        return Check("health", CheckStatus.WARN, f"no answer: {error.code().name}", fix)
    status = _HEALTH.get(answer, "UNKNOWN")
    if status == "SERVING":
        return Check("health", CheckStatus.OK, status)
    return Check(
        "health",
        CheckStatus.WARN,
        status,
        "wait until its models are loaded, or see the server's log",
    )


def _version_check(channel: grpc.Channel) -> Check:
    ours = labelmint.__version__
    try:
        answer = _answer(channel, "/inference.GRPCInferenceService/ServerMetadata")
        # ServerMetadataResponse has name and version in fields 1 and 2, as Any has its two fields.
        theirs = any_pb2.Any.FromString(answer).value.decode()
    except (grpc.RpcError, DecodeError, UnicodeDecodeError):
        return Check("server", CheckStatus.OK, "version unknown: the server does not report it")
    if theirs == ours:
        return Check("server", CheckStatus.OK, f"labelmint {theirs}, same as the client")
    fix = "both speak labelmint.v1; upgrade the older one if a feature is missing"
    return Check("server", CheckStatus.WARN, f"labelmint {theirs}, the client is {ours}", fix)


def filter_check(model: Model) -> Check:
    """Checks that samples of a model can be filtered by uncertainty."""
    name = f"model {model.name}"
    found = f"{model.engine}, batches of {model.max_batch_size}"
    if not model.score_source:
        fix = "use all samples, or export the bundle with an --interpreter that has a score"
        return Check(
            name, CheckStatus.WARN, f"{found}; has no uncertainty score: filters are refused", fix
        )
    if not model.calibrated:
        return Check(
            name,
            CheckStatus.WARN,
            f"{found}; not calibrated: keep_fraction is refused",
            "run python -m export calibrate BUNDLE --samples 4096 where the bundle is stored",
        )
    return Check(name, CheckStatus.OK, f"{found}; calibrated, scored by {model.score_words()}")


def size_check(model: Model) -> Check:
    """Checks that a sample fits into one message."""
    name = f"sizes {model.name}"
    usual = model.sample_bytes(model.usual_outputs(of_bank=True))
    whole = model.sample_bytes(model.outputs)
    found = f"{_mebibytes(usual)} per sample, {_mebibytes(whole)} with every output"
    if whole > MAX_RECEIVED_BYTES:
        limit = _mebibytes(MAX_RECEIVED_BYTES)
        return Check(
            name,
            CheckStatus.WARN,
            f"{found}; this client accepts messages up to {limit}",
            "request fewer outputs at once",
        )
    if whole > _DEFAULT_MESSAGE_BYTES:
        return Check(
            name,
            CheckStatus.WARN,
            f"{found}; messages have up to 4 MiB by default",
            f"set max_message_bytes={whole + (64 << 10)}, or request fewer outputs",
        )
    return Check(name, CheckStatus.OK, f"{found}; messages have up to 4 MiB")


def _sample_check(client: Client, model: Model) -> Check:
    name = f"sample {model.name}"
    try:
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            client.generate(model=model.name, bundle_id=model.bundle_id, count=1)
            seconds.append(time.perf_counter() - began)
    except LabelmintError as error:
        return Check(name, CheckStatus.FAIL, str(error), "see the server's log", error)
    first, second = (f"{1e3 * value:.0f} ms" for value in seconds)
    return Check(name, CheckStatus.OK, f"first answer in {first}, second in {second}")


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.2g} MiB" if size >= 1 << 20 else f"{size / 1024:.3g} KiB"

"""Checks of a server that answers: health, version, models, message sizes and a sample of each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

import labelmint
from labelmint.client import Client
from labelmint.doctor.connection import Check, State
from labelmint.errors import LabelmintError
from labelmint.model import Model
from labelmint.wire.channel import MAX_RECEIVED_BYTES, Tls, metadata_from_token, open_channel

_CALL_S = 10.0
_USUAL_MESSAGE_BYTES = (4 << 20) - (16 << 10)  # of a server that is not asked for more
_ON_REQUEST = ("uncertainty_map", "w")
_HEALTH = {b"": "UNKNOWN", b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}


def server_checks(client: Client, target: str, tls: Tls | None) -> Iterator[Check]:
    """Everything that can be asked of a server without changing it."""
    channel = open_channel(target, tls)
    try:
        yield _health_check(channel)
        yield _version_check(channel)
    finally:
        channel.close()
    try:
        models = client.models()
    except LabelmintError as error:
        yield Check("models", State.FAIL, str(error), "run doctor again", error)
        return
    if not models:
        yield Check("models", State.FAIL, "none is served", "give the server --bundle NAME=DIR")
    for model in models:
        yield filter_check(model)
        yield size_check(model)
        yield _sample_check(client, model)


def _answer(channel: grpc.Channel, method: str) -> bytes:
    """What a unary method says to an empty request, as it is on the wire."""
    call: Any = channel.unary_unary(method)
    answer: bytes = call(b"", timeout=_CALL_S, metadata=metadata_from_token(None))
    return answer


def _health_check(channel: grpc.Channel) -> Check:
    # By hand, because the package of this service is not needed for anything else.
    try:
        answer = _answer(channel, "/grpc.health.v1.Health/Check")
    except grpc.RpcError as error:
        fix = "not needed here; Kubernetes and balancers ask for it"
        return Check("health", State.WARN, f"no answer: {error.code().name}", fix)
    status = _HEALTH.get(answer, "UNKNOWN")
    if status == "SERVING":
        return Check("health", State.OK, status)
    return Check("health", State.WARN, status, "wait for models to load, or see the server's log")


def _version_check(channel: grpc.Channel) -> Check:
    ours = labelmint.__version__
    try:
        answer = _answer(channel, "/inference.GRPCInferenceService/ServerMetadata")
        # The answer's name and version are strings numbered 1 and 2, which is what an Any is.
        theirs = any_pb2.Any.FromString(answer).value.decode()
    except (grpc.RpcError, DecodeError, UnicodeDecodeError):
        return Check("server", State.OK, "does not tell its version")
    if theirs == ours:
        return Check("server", State.OK, f"labelmint {theirs}, as the client")
    fix = "fine within labelmint.v1; upgrade the older one when something is missing"
    return Check("server", State.WARN, f"labelmint {theirs}, the client is {ours}", fix)


def filter_check(model: Model) -> Check:
    """Whether a model's samples can be filtered."""
    name = f"model {model.name}"
    found = f"{model.engine}, batches of {model.max_batch_size}"
    if not model.score_source:
        fix = "take every sample, or export the bundle with an --interpreter that scores"
        return Check(name, State.WARN, f"{found}; cannot be filtered: it has no score", fix)
    if not model.calibrated:
        return Check(
            name,
            State.WARN,
            f"{found}; not calibrated: keep_fraction is refused",
            "python -m export calibrate BUNDLE --samples 4096, where the bundle is",
        )
    return Check(name, State.OK, f"{found}; calibrated by {model.score_source}")


def size_check(model: Model) -> Check:
    """Whether samples fit into messages."""
    name = f"sizes {model.name}"
    usual = model.sample_bytes([each for each in model.outputs if each not in _ON_REQUEST])
    whole = model.sample_bytes(model.outputs)
    found = f"a sample has {_mebibytes(usual)}, with every output {_mebibytes(whole)}"
    if whole > MAX_RECEIVED_BYTES:
        limit = _mebibytes(MAX_RECEIVED_BYTES)
        fix = "ask for fewer outputs at once"
        return Check(name, State.WARN, f"{found}; this client takes {limit} a message", fix)
    if whole > _USUAL_MESSAGE_BYTES:
        fix = f"ask for max_message_bytes={whole + (64 << 10)}, or for fewer outputs"
        return Check(name, State.WARN, f"{found}; a message has 4 MiB unless asked for more", fix)
    return Check(name, State.OK, f"{found}; a message has 4 MiB")


def _sample_check(client: Client, model: Model) -> Check:
    name = f"sample {model.name}"
    try:
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            client.generate(model=model.name, bundle_id=model.bundle_id, count=1)
            seconds.append(time.perf_counter() - began)
    except LabelmintError as error:
        return Check(name, State.FAIL, str(error), "see the server's log", error)
    first, second = (f"{1e3 * value:.0f} ms" for value in seconds)
    return Check(name, State.OK, f"answered in {first}, again in {second}")


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.2g} MiB" if size >= 1 << 20 else f"{size / 1024:.3g} KiB"

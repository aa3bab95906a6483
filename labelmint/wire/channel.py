"""gRPC channels to a server: TLS, message sizes, keepalive, and the token of calls.

Enters: a target. Leave: a channel, and the metadata of its calls. Neither grpc nor threads survive
a fork, so each object that has them belongs to the process that made it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from labelmint.errors import ClientClosed
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1 import label_service_pb2_grpc as pb_grpc
from labelmint.wire.message_parts import MAX_PARTS, check_parts

MAX_RECEIVED_BYTES = 64 << 20  # size limit of one message
# The same of ListModels and GetModel, and their number of parts: a view bank has many cameras.
MAX_DESCRIPTION_BYTES, MAX_DESCRIPTION_PARTS = 8 << 20, 200_000
_DESCRIPTIONS = ("ListModels", "GetModel")
# With round_robin, successive calls go to different servers behind one name. grpc must not repeat
# failed calls, because a stream has to be resumed at its position, see `retries`.
# Descriptions are small; a hostile one of 64 MiB could take gigabytes once it is parsed.
_SERVICE = "labelmint.v1.LabelService"
_SERVICE_CONFIG: dict[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": _SERVICE, "method": name} for name in _DESCRIPTIONS],
            "maxResponseMessageBytes": MAX_DESCRIPTION_BYTES,
        }
    ],
}
_CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
    ("grpc.max_send_message_length", 64 << 20),  # explicit latents can be large
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Reconnects within two seconds to a server that comes back; the default is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # in fact the time limit of a connection attempt
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A name is looked up again when a connection ends or reaches its maximum age.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # gRPC would repeat a call that no server saw without a wait or an end, and keep memory for each
    # time: a server that closes every connection in good order could fill this process's. Retries
    # repeats such a call once at once, as one that met the end of an aged connection.
    ("grpc.enable_retries", 0),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
)
# Schemes of targets that this module does not check; grpc does.
_OTHER_SCHEMES = ("ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "passthrough:", "xds:")

_first_pid = 0  # process that opened the first channel; forks inherit the value


@dataclass(frozen=True)
class Tls:
    """PEM files of an encrypted channel.

    Raises ValueError for a certificate without a private key, or the other way round.
    """

    authorities: str | Path | None = None  # that sign the server's certificate; None: the system's
    certificate: str | Path | None = None  # of this client, for mutual TLS
    private_key: str | Path | None = None  # of `certificate`
    server_name: str | None = None  # name in the server's certificate; None: the target's host

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.private_key):  # grpc would abort the process
            given, missing = ("certificate", "private_key")[:: 1 if self.certificate else -1]
            raise ValueError(
                f"{given} {getattr(self, given)} is given without a {missing}; mutual TLS needs "
                "both"
            )


def open_channel(target: str, tls: Tls | None) -> grpc.Channel:
    """A channel that connects at its first call; tls None: plain text.

    Raises:
        ValueError: the target has no host or port, or a file of tls is not PEM.
        OSError: a file of tls cannot be read.
        ClientClosed: this process is a fork of one that opened a channel.
    """
    check_target(target)
    _check_no_fork()
    if tls is None:
        return grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
    authorities, key, certificate = map(
        _pem_from_file, (tls.authorities, tls.private_key, tls.certificate)
    )
    options = _CHANNEL_OPTIONS
    if tls.server_name:
        options += (("grpc.ssl_target_name_override", tls.server_name),)
    credentials = grpc.ssl_channel_credentials(authorities, key, certificate)
    return grpc.secure_channel(target, credentials, options=options)


def stub_from_channel(channel: grpc.Channel) -> Any:
    """A LabelServiceStub whose answers are refused, as INTERNAL, when they have endless parts."""
    return pb_grpc.LabelServiceStub(_BoundedChannel(channel))


class _BoundedChannel:
    """What a stub needs of a channel; counts the parts of answers before they are parsed."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.unary_unary = partial(_bounded, channel.unary_unary)
        self.unary_stream = partial(_bounded, channel.unary_stream)
        self.stream_stream = partial(_bounded, channel.stream_stream)


def _bounded(
    multicallable: Callable[..., Any],
    path: str,
    response_deserializer: Callable[[bytes], Any],
    **options: Any,
) -> Any:
    method = path.rpartition("/")[2]
    answer = pb.DESCRIPTOR.services_by_name["LabelService"].methods_by_name[method].output_type
    max_parts = MAX_DESCRIPTION_PARTS if method in _DESCRIPTIONS else MAX_PARTS

    def message_from_bytes(data: bytes) -> Any:
        check_parts(data, answer, max_parts)
        return response_deserializer(data)

    return multicallable(path, response_deserializer=message_from_bytes, **options)


def _pem_from_file(file: str | Path | None) -> bytes | None:
    """Content of a PEM file; None if file is None."""
    data = Path(file).read_bytes() if file else None
    if data is not None and b"-----BEGIN " not in data:
        raise ValueError(f"{file} is not PEM: it has no line that begins with -----BEGIN")
    return data


def check_target(target: str) -> None:
    """Raises ValueError for a target without a host or port, TypeError for other types than str.

    grpc itself would use port 443 if there is none, and another port if it is over 65535.
    """
    if not isinstance(target, str):
        raise TypeError(f"target is {target!r}; give text, such as 'localhost:50051'")
    if target.startswith(_OTHER_SCHEMES):
        return
    host, _, port = re.sub(r"^dns:(//[^/]*/)?", "", target).rpartition(":")
    bare = (host.startswith("[") and host.endswith("]")) or not set(host) & set("/:[]")
    if not host or not bare or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(
            f"target {target!r} is not host:port, with a port from 1 to 65535; give for example "
            "localhost:50051"
        )


def metadata_from_token(token: str | None) -> tuple[tuple[str, str], ...]:
    """gRPC metadata of calls: the bearer token, if any.

    Args:
        token: None: the environment variable LABELMINT_TOKEN, if it is set. Blanks and line
            breaks at both ends, as at the end of a secret's file, are removed.

    Raises:
        ValueError: the token has characters that a header cannot have.
        TypeError: the token is not a str.
    """
    if token is not None and not isinstance(token, str):  # the message must not show the token
        raise TypeError(f"the token is of type {type(token).__name__}; give text")
    token = (token or os.environ.get("LABELMINT_TOKEN", "")).strip()
    if not all("!" <= letter <= "~" for letter in token):
        raise ValueError(
            "the token has a blank, a line break or a non-ASCII character in it; give one word"
        )
    return (("authorization", f"Bearer {token}"),) if token else ()


@dataclass(frozen=True)
class OwnerProcess:
    """The process that made an object; neither grpc nor threads survive a fork of it."""

    pid: int = field(default_factory=os.getpid)

    @property
    def is_here(self) -> bool:
        """Whether this process made the object; false in a fork."""
        return self.pid == os.getpid()

    def check(self) -> None:
        """Raises ClientClosed in a fork."""
        if not self.is_here:
            raise ClientClosed(
                f"the client belongs to process {self.pid}, and this is its fork {os.getpid()}; "
                "make a Client in each process, and start those with 'forkserver' or 'spawn'"
            )


def _check_no_fork() -> None:
    """Raises ClientClosed in a fork of a process that used grpc, where grpc may hang or crash."""
    global _first_pid
    _first_pid = _first_pid or os.getpid()
    if _first_pid != os.getpid():
        raise ClientClosed(
            f"process {os.getpid()} was forked from {_first_pid}, which had used labelmint, and "
            "gRPC may hang after such a fork: give the DataLoader "
            'multiprocessing_context="forkserver", or start the process by '
            'multiprocessing.get_context("forkserver")'
        )

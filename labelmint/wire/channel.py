"""Connections to servers: target and `Tls` -> a gRPC channel, token -> metadata of its calls.

An object with channels or threads also remembers its `OwnerProcess`, because neither survives a
fork.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from labelmint.errors import ClientClosed

MAX_RECEIVED_BYTES = 64 << 20  # limit of one message
# Each call goes to the next replica behind a name, so the calls of streams=n go to n of them.
# gRPC must not repeat failed calls itself: a stream is resumed at its position, see retries.
_SERVICE_CONFIG: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
_CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
    ("grpc.max_send_message_length", 64 << 20),  # requests with explicit latents
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that comes back is found within two seconds; gRPC's default is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # despite its name, the limit of one attempt
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A name is looked up again whenever a connection ends, at most once a second.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.enable_retries", 0),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
)
# Schemes of targets that gRPC checks itself: lists of addresses, or paths.
_OTHER_SCHEMES = ("ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "passthrough:", "xds:")

_first_pid = 0  # process that first opened a channel; forks inherit the value
_log = logging.getLogger("labelmint")


@dataclass(frozen=True)
class Tls:
    """PEM files for an encrypted channel; all None trusts the system's authorities.

    Raises ValueError for a certificate without its private key, or a key without its certificate.
    """

    authorities: str | Path | None = None  # authorities that may sign the server's certificate
    certificate: str | Path | None = None  # this client's certificate, for mutual TLS
    private_key: str | Path | None = None  # private key of that certificate
    server_name: str | None = None  # name in the server's certificate; None: the target's host

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.private_key):  # gRPC would abort the process
            given, missing = ("certificate", "private_key")[:: 1 if self.certificate else -1]
            raise ValueError(
                f"{given} {getattr(self, given)} is given without a {missing}; mutual TLS needs "
                "both"
            )


def open_channel(target: str, tls: Tls | None) -> grpc.Channel:
    """A channel that connects at its first call; tls None: plain text.

    Raises:
        ValueError: the target has no host or no port, or a file of tls is not PEM.
        OSError: a file of tls cannot be read.
    """
    check_target(target)
    _warn_of_fork()
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


def _pem_from_file(file: str | Path | None) -> bytes | None:
    """The file's bytes; None if file is None. Raises ValueError when it is not PEM."""
    data = Path(file).read_bytes() if file else None
    if data is not None and b"-----BEGIN " not in data:
        raise ValueError(f"{file} is not PEM: it has no line that begins with -----BEGIN")
    return data


def check_target(target: str) -> None:
    """Raises ValueError for a target without a host or a port, TypeError if it is not text.

    gRPC would use port 443 where none is named, and a wrong port where it is over 65535.
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
    """Metadata that authorizes a call; None takes the token of LABELMINT_TOKEN, if any.

    Blanks around the token, such as the line break at the end of a file, are removed. Raises
    ValueError for a token that no header can carry, TypeError if it is not text.
    """
    if token is not None and not isinstance(token, str):  # messages never show the token
        raise TypeError(f"the token is of type {type(token).__name__}; give text")
    token = (token or os.environ.get("LABELMINT_TOKEN", "")).strip()
    if not all("!" <= letter <= "~" for letter in token):
        raise ValueError(
            "the token has a blank, a line break or a character beyond ASCII in it; give one word"
        )
    return (("authorization", f"Bearer {token}"),) if token else ()


@dataclass(frozen=True)
class OwnerProcess:
    """The process that made an object; gRPC calls and threads do not survive a fork of it."""

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
                "make a Client in each process"
            )


def _warn_of_fork() -> None:
    """Logs a warning in a fork of a process that used gRPC, where gRPC may hang or crash."""
    global _first_pid
    _first_pid = _first_pid or os.getpid()
    if _first_pid != os.getpid():
        _log.warning(
            "process %d was forked from %d, which has used gRPC; gRPC may hang or crash after a "
            "fork: start workers with multiprocessing_context='forkserver'",
            os.getpid(),
            _first_pid,
        )

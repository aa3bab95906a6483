"""How a channel to a server is opened: `Tls`, sizes and keepalive, and the token.

Enters: a target. Leaves: a gRPC channel, and the metadata that every call on it sends. Neither
grpc nor threads survive a fork, so what has them belongs to the process that made it.
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


@dataclass(frozen=True)
class Home:
    """The process that something was made in."""

    pid: int = field(default_factory=os.getpid)

    @property
    def is_here(self) -> bool:
        """Whether this is it, not a fork of it."""
        return self.pid == os.getpid()

    def check(self) -> None:
        """Raises ClientClosed in a fork."""
        if not self.is_here:
            raise ClientClosed(
                f"the client is of process {self.pid}, and this is its fork {os.getpid()}; make a "
                "Client in each process"
            )


MAX_RECEIVED_BYTES = 64 << 20  # of one message
# One call goes to one replica behind a name, and the calls of streams=n to n of them. Failed calls
# are not grpc's to repeat: a stream has to go on at its position, see retries.
_SERVICE_CONFIG: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
_CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
    ("grpc.max_send_message_length", 64 << 20),  # explicit latents
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that comes back is found again within two seconds, not within two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # for one attempt to connect, whatever it is called
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A name is looked up again when a connection ends or grows old, and may be as often.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.enable_retries", 0),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
)
# Those that list addresses or paths; what they say is for grpc to judge.
_OTHER_SCHEMES = ("ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "passthrough:", "xds:")

_first_pid = 0  # of the process that opened a channel first; forks inherit it
_log = logging.getLogger("labelmint")


@dataclass(frozen=True)
class Tls:
    """PEM files for an encrypted channel; all None trusts the system's authorities.

    Raises ValueError for a certificate without its private key, and the other way round.
    """

    authorities: str | Path | None = None  # that the server's certificate has to come from
    certificate: str | Path | None = None  # this client's own, for mutual TLS
    private_key: str | Path | None = None  # of that certificate
    server_name: str | None = None  # to expect in the server's certificate, if not the target's

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.private_key):  # grpc aborts the process
            given, missing = ("certificate", "private_key")[:: 1 if self.certificate else -1]
            raise ValueError(
                f"{given} {getattr(self, given)} is given without a {missing}; mutual TLS needs "
                "both"
            )


def open_channel(target: str, tls: Tls | None) -> grpc.Channel:
    """A channel that connects at its first call.

    Raises ValueError for a target without a host or a port and for a file of tls that is not PEM,
    OSError when one cannot be read.
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
    """None of none."""
    data = Path(file).read_bytes() if file else None
    if data is not None and b"-----BEGIN " not in data:
        raise ValueError(f"{file} is not PEM: it has no line that begins with -----BEGIN")
    return data


def check_target(target: str) -> None:
    """Raises ValueError for a target without a host or a port, TypeError for what is no text.

    grpc takes port 443 where none is named, and another port where it is over 65535.
    """
    if not isinstance(target, str):
        raise TypeError(f"target is {target!r}; give text, as 'localhost:50051'")
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
    """What calls send along; None takes the token of LABELMINT_TOKEN, if any.

    Raises ValueError for a token that no header can carry, TypeError for what is no text. Blanks
    around it, as the line break at the end of a file or secret, are left out.
    """
    if token is not None and not isinstance(token, str):  # which no message may show
        raise TypeError(f"the token is of type {type(token).__name__}; give text")
    token = (token or os.environ.get("LABELMINT_TOKEN", "")).strip()
    if not all("!" <= letter <= "~" for letter in token):
        raise ValueError(
            "the token has a blank, a line break or a letter beyond ASCII in it; give one word"
        )
    return (("authorization", f"Bearer {token}"),) if token else ()


def _warn_of_fork() -> None:
    """grpc may hang or crash in a child of a process that used it."""
    global _first_pid
    _first_pid = _first_pid or os.getpid()
    if _first_pid != os.getpid():
        _log.warning(
            "process %d was forked from %d, which has used grpc; grpc does not survive that for "
            "sure: start workers with multiprocessing_context='forkserver'",
            os.getpid(),
            _first_pid,
        )

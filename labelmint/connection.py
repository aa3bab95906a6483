"""Channels to the replicas of a service, taken in turns."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from labelmint.v1 import label_service_pb2_grpc as pb_grpc

# One call goes to one replica behind a name, and the calls of streams=n to n of them. Failed calls
# are not grpc's to repeat: a stream has to go on at its position, see retries.
_SERVICE_CONFIG: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),  # explicit latents
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that comes back is found again within two seconds, not within two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
)


@dataclass(frozen=True)
class Tls:
    """PEM files for an encrypted channel; all None trusts the system's authorities."""

    authorities: str | Path | None = None  # that the server's certificate has to come from
    certificate: str | Path | None = None  # this client's own, for mutual TLS
    private_key: str | Path | None = None  # of that certificate
    server_name: str | None = None  # to expect in the server's certificate, if not the target's


@dataclass(frozen=True)
class Replica:
    """One target: a server, or several behind one name."""

    target: str
    stub: Any


class Replicas:
    """The replicas of a service, for calls in turns. Safe for several threads."""

    def __init__(self, targets: Sequence[str], tls: Tls | None) -> None:
        """Connects at the first call. Raises OSError when a file of tls cannot be read."""
        self._channels = [_open_channel(target, tls) for target in targets]
        stubs = [pb_grpc.LabelServiceStub(channel) for channel in self._channels]
        self._turns = itertools.cycle(map(Replica, targets, stubs))  # next() on it is atomic

    def next(self) -> Replica:
        """Whose turn it is."""
        return next(self._turns)

    def close(self) -> None:
        """Ends all calls; harmless when closed."""
        for channel in self._channels:
            channel.close()


def targets_from_text(text: str) -> list[str]:
    """The targets of "host:port,host:port"; names that list addresses themselves stay whole."""
    if text.startswith(("ipv4:", "ipv6:")):
        return [text]
    return [target.strip() for target in text.split(",") if target.strip()]


def _open_channel(target: str, tls: Tls | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(target, options=_OPTIONS)
    authorities, key, certificate = (
        Path(file).read_bytes() if file else None
        for file in (tls.authorities, tls.private_key, tls.certificate)
    )
    options = _OPTIONS
    if tls.server_name:
        options += (("grpc.ssl_target_name_override", tls.server_name),)
    credentials = grpc.ssl_channel_credentials(authorities, key, certificate)
    return grpc.secure_channel(target, credentials, options=options)

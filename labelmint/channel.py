"""How a channel to a server is opened: `Tls`, retries, sizes and keepalive, and the token.

Enters: a target. Leaves: a gRPC channel, and the metadata that every call on it sends.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import grpc

MAX_RECEIVED_BYTES = 64 << 20  # of one message
_SERVICE_CONFIG = {
    # One call goes to one replica, and the calls of streams=n to n of them.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "labelmint.v1.LabelService"}],
            # RESOURCE_EXHAUSTED stays out: it also means a message over the size limit.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}
_CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
    ("grpc.max_send_message_length", 64 << 20),  # explicit latents
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
)


@dataclass(frozen=True)
class Tls:
    """PEM files for an encrypted channel; all None trusts the system's authorities."""

    authorities: str | Path | None = None  # that the server's certificate has to come from
    certificate: str | Path | None = None  # this client's own, for mutual TLS
    private_key: str | Path | None = None  # of that certificate
    server_name: str | None = None  # to expect in the server's certificate, if not the target's


def open_channel(target: str, tls: Tls | None) -> grpc.Channel:
    """A channel that connects at its first call; OSError when a file of tls cannot be read."""
    if tls is None:
        return grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
    authorities, key, certificate = (
        Path(file).read_bytes() if file else None
        for file in (tls.authorities, tls.private_key, tls.certificate)
    )
    options = _CHANNEL_OPTIONS
    if tls.server_name:
        options += (("grpc.ssl_target_name_override", tls.server_name),)
    credentials = grpc.ssl_channel_credentials(authorities, key, certificate)
    return grpc.secure_channel(target, credentials, options=options)


def metadata_from_token(token: str | None) -> tuple[tuple[str, str], ...]:
    """What calls send along; None takes the token of LABELMINT_TOKEN, if any."""
    token = token or os.environ.get("LABELMINT_TOKEN", "")
    return (("authorization", f"Bearer {token}"),) if token else ()

"""Options that every verb has: where the server is, and how to reach it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict, cast

import click

from labelmint.client import Client
from labelmint.wire.channel import Tls
from labelmint.wire.retries import Patience

_TLS: tuple[Literal["authorities", "certificate", "private_key", "server_name"], ...] = (
    "authorities", "certificate", "private_key", "server_name",
)  # fmt: skip
_FILE = click.Path(exists=True, dir_okay=False)
_CONNECTION = (
    click.option(
        "--target",
        envvar="LABELMINT_TARGET",
        show_envvar=True,
        required=True,
        help="host:port, several with commas between, or dns:///name:port for all replicas.",
    ),
    click.option("--tls", is_flag=True, help="Encrypt, trusting the system's authorities."),
    click.option("--authorities", type=_FILE, help="PEM file to trust instead; implies --tls."),
    click.option("--certificate", type=_FILE, help="PEM file for mutual TLS; implies --tls."),
    click.option("--private-key", type=_FILE, help="PEM file of the certificate's key."),
    click.option(
        "--server-name",
        help="To expect in the server's certificate, if not the target's; implies --tls.",
    ),
)


class Connection(TypedDict):
    """The options of `connects`; the token comes from LABELMINT_TOKEN alone."""

    target: str
    tls: bool
    authorities: str | None
    certificate: str | None
    private_key: str | None
    server_name: str | None


def connects(verb: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options of a connection."""
    for option in reversed(_CONNECTION):
        verb = option(verb)
    return verb


def connection_from_options(options: dict[str, Any]) -> Connection:
    """Removes the options of `connects` from these."""
    return cast(Connection, {name: options.pop(name) for name in Connection.__annotations__})


def client_from_connection(
    connection: Connection,
    streams: int = 1,
    timeout_s: float = 60.0,
    patience: Patience | None = None,
) -> Client:
    """The client of these options; for the other arguments see `labelmint.Client`."""
    tls = tls_from_connection(connection)
    try:
        return Client(
            connection["target"], streams=streams, tls=tls, timeout_s=timeout_s, patience=patience
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def tls_from_connection(connection: Connection) -> Tls | None:
    """What these options say of encryption; None is plain text."""
    given = [connection[name] for name in _TLS]
    try:
        return Tls(*given) if connection["tls"] or any(given) else None
    except ValueError as error:
        raise click.UsageError(str(error)) from error

"""Command-line options of the connection, which every subcommand has: target and TLS files.

Enter: parsed options. Leave: a `Client`, or the TLS settings.
"""

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
        default="localhost:50051",
        show_default=True,
        metavar="HOST:PORT",
        help="Address of the server. Several replicas: separated by commas, or dns:///NAME:PORT "
        "for all addresses of a name.",
    ),
    click.option(
        "--tls",
        is_flag=True,
        help="Encrypt the connection; verify the server with the system's certificate authorities.",
    ),
    click.option(
        "--authorities",
        type=_FILE,
        help="PEM file of the certificate authorities to verify the server with; implies --tls.",
    ),
    click.option(
        "--certificate",
        type=_FILE,
        help="PEM file of this client's certificate, for mutual TLS; implies --tls.",
    ),
    click.option("--private-key", type=_FILE, help="PEM file of the private key of --certificate."),
    click.option(
        "--server-name",
        help="Host name that the server's certificate must have, if it differs from the one in "
        "--target; implies --tls.",
    ),
)


class Connection(TypedDict):
    """Values of `connection_options`. The token is no option: LABELMINT_TOKEN alone gives it."""

    target: str
    tls: bool
    authorities: str | None
    certificate: str | None
    private_key: str | None
    server_name: str | None


def connection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --target and the TLS options to a subcommand."""
    for option in reversed(_CONNECTION):
        command = option(command)
    return command


def connection_from_options(options: dict[str, Any]) -> Connection:
    """Removes the values of `connection_options` from options and returns them."""
    return cast(Connection, {name: options.pop(name) for name in Connection.__annotations__})


def client_from_connection(
    connection: Connection,
    streams: int = 1,
    timeout_s: float = 60.0,
    patience: Patience | None = None,
) -> Client:
    """The client of a connection; for the other arguments see `labelmint.Client`.

    Raises click.UsageError for a target or file that no client takes.
    """
    tls = tls_from_connection(connection)
    try:
        return Client(
            connection["target"], streams=streams, tls=tls, timeout_s=timeout_s, patience=patience
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def tls_from_connection(connection: Connection) -> Tls | None:
    """TLS settings of the connection; None for plain text. Raises click.UsageError."""
    given = [connection[name] for name in _TLS]
    try:
        return Tls(*given) if connection["tls"] or any(given) else None
    except ValueError as error:
        raise click.UsageError(str(error)) from error

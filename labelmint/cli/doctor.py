"""`labelmint doctor`: checks of the installation, the connection and the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from labelmint.cli.connection import (
    Connection,
    client_from_connection,
    connection_options,
    tls_from_connection,
)
from labelmint.cli.exit_codes import FAILURE, code_from_error
from labelmint.doctor.connection import Check, CheckStatus, connection_checks
from labelmint.doctor.machine import machine_checks
from labelmint.doctor.server import server_checks
from labelmint.errors import MAX_MESSAGE_CHARACTERS, printable_from_text
from labelmint.wire.channel import metadata_from_token
from labelmint.wire.retries import Patience

if TYPE_CHECKING:
    from typing_extensions import Unpack

_COLORS = {CheckStatus.OK: "green", CheckStatus.WARN: "yellow", CheckStatus.FAIL: "red"}
_TIMEOUT_S = 30.0
_PATIENCE = Patience(reconnect_s=2.0)  # a server that is loading is reported, not waited for


@click.command()
@connection_options
def doctor(**connection: Unpack[Connection]) -> None:
    """Check the installation, the connection and the server.

    Prints one line per check: its status (ok, warn or fail), what was found, and the fix.
    Warnings are about speed and about features that a model lacks. The exit code is 0 unless a
    check fails.
    """
    failed: list[Check] = []
    for check in _checks(connection):
        click.echo(line_from_check(check))
        if check.status is CheckStatus.FAIL:
            failed.append(check)
    if failed:
        error = failed[0].error
        click.get_current_context().exit(code_from_error(error) if error else FAILURE)


def _checks(connection: Connection) -> Iterator[Check]:
    target, tls = connection["target"], tls_from_connection(connection)
    with client_from_connection(connection, timeout_s=_TIMEOUT_S, patience=_PATIENCE) as client:
        yield from machine_checks()
        reached = connection_checks(client, target, tls, token=bool(metadata_from_token(None)))
        yield from reached
        if reached[-1].status is not CheckStatus.FAIL:
            yield from server_checks(client, target, tls)


def line_from_check(check: Check) -> str:
    """The check as one line; unprintable characters, which a server may send, are escaped."""
    status = click.style(f"{check.status.value:<5}", _COLORS[check.status], bold=True)
    text = f"{check.name}: {check.found}" + (f"; {check.fix}" if check.fix else "")
    return status + printable_from_text(" ".join(text.split()), MAX_MESSAGE_CHARACTERS)

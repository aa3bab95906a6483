"""`labelmint doctor`: what stands between this machine and its samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from labelmint.cli.connection import (
    Connection,
    client_from_connection,
    connects,
    tls_from_connection,
)
from labelmint.cli.exit_codes import FAILURE, code_from_error
from labelmint.doctor.connection import Check, State, connection_checks
from labelmint.doctor.machine import machine_checks
from labelmint.doctor.server import server_checks
from labelmint.wire.channel import metadata_from_token

if TYPE_CHECKING:
    from typing_extensions import Unpack

_COLORS = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red"}
_TIMEOUT_S = 30.0


@click.command()
@connects
def doctor(**connection: Unpack[Connection]) -> None:
    """Check this machine, the way to a server, and the server.

    Each line is one check: ok, warn or fail, and what to do about it. The exit code is 0 unless
    one failed; warnings are about speed, and about what a model cannot do.
    """
    failed: list[Check] = []
    for check in _checks(connection):
        click.echo(line_from_check(check))
        if check.state is State.FAIL:
            failed.append(check)
    if failed:
        error = failed[0].error
        click.get_current_context().exit(code_from_error(error) if error else FAILURE)


def _checks(connection: Connection) -> Iterator[Check]:
    target, tls = connection["target"], tls_from_connection(connection)
    with client_from_connection(connection, timeout_s=_TIMEOUT_S) as client:
        yield from machine_checks()
        reached = connection_checks(client, target, tls, token=bool(metadata_from_token(None)))
        yield from reached
        if reached[-1].state is not State.FAIL:
            yield from server_checks(client, target, tls)


def line_from_check(check: Check) -> str:
    """One line for people, whatever a server has put into it."""
    state = click.style(f"{check.state.value:<5}", _COLORS[check.state], bold=True)
    text = f"{check.name}: {check.found}" + (f"; {check.fix}" if check.fix else "")
    return state + "".join(
        letter if letter.isprintable() else " " for letter in " ".join(text.split())
    )

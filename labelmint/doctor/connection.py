"""Checks of the connection to a server: host name, port, TLS and token.

Enter: a client and its target. Leave: checks, of which the last has failed where calls are not
answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from labelmint.client import Client
from labelmint.errors import Denied, LabelmintError, NotFound, TimedOut, Unreachable, is_loading
from labelmint.wire.channel import Tls
from labelmint.wire.faults import endpoint_from_target, fault_of_endpoint

_START = "start the server, or correct --target"


class CheckStatus(Enum):
    """Result of a check."""

    OK = "ok"
    WARN = "warn"  # works, but slowly or without some feature
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report."""

    name: str  # what was checked
    status: CheckStatus
    found: str
    fix: str = ""  # what to do; empty if nothing is wrong
    error: LabelmintError | None = None  # of the call that made the check fail, if any


def connection_checks(client: Client, target: str, tls: Tls | None, token: bool) -> list[Check]:
    """Checks that the server answers a call; if it does not, the last check has status FAIL.

    Args:
        client: client of this target.
        target, tls: the client's own target and TLS settings.
        token: whether the client sends a token.
    """
    over = "plain text" if tls is None else "TLS"
    answers = Check("connection", CheckStatus.OK, f"{target} answers over {over}")
    try:
        client.models()
    except (Unreachable, TimedOut) as error:
        if is_loading(error):
            fix = "wait until its models are loaded, or see the server's log"
            return [Check("connection", CheckStatus.FAIL, str(error), fix, error)]
        endpoint = endpoint_from_target(target)
        fault = fault_of_endpoint(endpoint, tls) if endpoint else None
        found, fix = fault or (str(error), _START)
        return [Check("connection", CheckStatus.FAIL, found, fix, error)]
    except Denied as error:
        return [answers, _denied(error, token)]
    except NotFound as error:
        found = f"{target} answers over {over}, but is not a labelmint server: {error}"
        return [Check("connection", CheckStatus.FAIL, found, "correct --target", error)]
    except LabelmintError as error:
        return [
            answers,
            Check("calls", CheckStatus.FAIL, str(error), "see the server's log", error),
        ]
    found = "accepted" if token else "none sent, and the server needs none"
    return [answers, Check("token", CheckStatus.OK, found)]


def _denied(error: Denied, token: bool) -> Check:
    if token:
        fix = "set LABELMINT_TOKEN to a token in the server's --token-file"
        return Check("token", CheckStatus.FAIL, f"refused: {error}", fix, error)
    return Check("token", CheckStatus.FAIL, f"none sent: {error}", "set LABELMINT_TOKEN", error)

"""Checks of the way to a server: its name, its port, TLS and the token, told apart.

gRPC says UNAVAILABLE for most of these, so a plain socket finds out which it was.
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from labelmint.client import Client
from labelmint.errors import Denied, LabelmintError, NotFound, TimedOut, Unreachable
from labelmint.wire.channel import Tls


class State(Enum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"  # works, but slower or with less than it could
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do about it."""

    name: str
    state: State
    found: str
    fix: str = ""  # empty where nothing is wrong
    error: LabelmintError | None = None  # why it failed, where a call did


_PROBE_S = 5.0  # for the socket to connect, and to say something
_START = "start the server, or correct --target"
Endpoint = tuple[str, int]


def connection_checks(client: Client, target: str, tls: Tls | None, token: bool) -> list[Check]:
    """Whether calls are answered; the last check has failed where they are not.

    Args:
        client: connected to target.
        target, tls: as the client has them.
        token: whether the client sends one.
    """
    over = "plain text" if tls is None else "TLS"
    answers = Check("connection", State.OK, f"{target} answers over {over}")
    try:
        client.models()
    except (Unreachable, TimedOut) as error:
        endpoint = endpoint_from_target(target)
        found, fix = _diagnosis(endpoint, tls) if endpoint else ("", "")
        return [Check("connection", State.FAIL, found or str(error), fix or _START, error)]
    except Denied as error:
        return [answers, _denied(error, token)]
    except NotFound as error:
        found = f"{target} answers over {over}, but is no labelmint server: {error}"
        return [Check("connection", State.FAIL, found, "correct --target", error)]
    except LabelmintError as error:
        return [answers, Check("calls", State.FAIL, str(error), "see the server's log", error)]
    said = "accepted" if token else "none sent, none asked for"
    return [answers, Check("token", State.OK, said)]


def _denied(error: Denied, token: bool) -> Check:
    if token:
        fix = "set LABELMINT_TOKEN to a token in the server's --token-file"
        return Check("token", State.FAIL, f"refused: {error}", fix, error)
    return Check("token", State.FAIL, f"none sent: {error}", "set LABELMINT_TOKEN", error)


def endpoint_from_target(target: str) -> Endpoint | None:
    """The host and port that a gRPC target names; None where it is not that simple."""
    rest = re.sub(r"^(dns:(//[^/]*/)?|ipv4:|ipv6:|passthrough:///)", "", target)
    match = re.fullmatch(r"(?:\[([^\]/]+)\]|([^:/,\[\]]+)):(\d{1,5})", rest)
    return (match[1] or match[2], int(match[3])) if match else None


def _diagnosis(endpoint: Endpoint, tls: Tls | None) -> tuple[str, str]:
    """What is wrong, and the fix; empty where the socket finds nothing wrong."""
    host, port = endpoint
    try:
        with socket.create_connection(endpoint, _PROBE_S) as connected:
            connected.settimeout(_PROBE_S)
            if tls is None:
                return _plain_diagnosis(connected)
            return _tls_diagnosis(connected, tls.server_name or host, tls)
    except socket.gaierror as error:
        return f"the name {host} is unknown: {error.strerror}", "correct --target, or the DNS"
    except ConnectionRefusedError:
        return f"nothing listens on {host} port {port}", _START
    except TimeoutError:
        return f"{host} port {port} is silent for {_PROBE_S:g} s", "look for a firewall between"
    except (OSError, OverflowError) as error:
        return f"{host} port {port} cannot be reached: {error}", "correct --target"


def _plain_diagnosis(connected: socket.socket) -> tuple[str, str]:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE  # nothing is sent: only whether it is TLS matters
    try:
        trusting.wrap_socket(connected).close()
    except OSError:
        return "something listens there, but does not speak gRPC", "correct --target"
    return (
        "the server speaks TLS, and this was plain text",
        "add --tls, or --authorities with the PEM file of its authority",
    )


def _tls_diagnosis(connected: socket.socket, name: str, tls: Tls) -> tuple[str, str]:
    try:
        context = ssl.create_default_context(cafile=tls.authorities)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.private_key)
    except OSError as error:  # ssl.SSLError is one
        files = [file for file in (tls.authorities, tls.certificate, tls.private_key) if file]
        listed = ", ".join(Path(file).name for file in files)
        return f"the PEM files are of no use: {error}", f"correct {listed}"
    context.set_alpn_protocols(["h2"])
    try:
        secured = context.wrap_socket(connected, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        return f"the server's certificate is refused: {error.verify_message}", _untrusted(error)
    except TimeoutError:
        return "something listens there, but does not speak TLS", "correct --target"
    except OSError:
        return "the server speaks plain text, and this was TLS", "leave out --tls and PEM files"
    with secured:
        return ("", "") if _says_something(secured) else _refused(tls)


def _says_something(secured: ssl.SSLSocket) -> bool:
    """With TLS 1.3 a server refuses a client's certificate only now, and often without a word."""
    try:
        return bool(secured.recv(1))
    except OSError:
        return False


def _refused(tls: Tls) -> tuple[str, str]:
    what = "refuses this client's certificate" if tls.certificate else "wants a client certificate"
    return (
        f"the server hangs up after the TLS handshake, as one that {what}",
        "give --certificate and --private-key from an authority that it trusts",
    )


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    expired, wrong_names = 10, (62, 64)  # X509_V_ERR_... of OpenSSL
    if error.verify_code == expired:
        return "renew it on the server"
    if error.verify_code in wrong_names:
        return "reach the server by a name that its certificate has"
    return "give --authorities with the PEM file of the authority that signed it"

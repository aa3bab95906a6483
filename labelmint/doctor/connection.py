"""Checks of the connection to a server: host name, port, TLS and token.

Enter: a client and its target. Leave: checks, of which the last has failed where calls are not
answered. gRPC reports most faults of a connection as UNAVAILABLE, so a plain socket connects again
to find out which fault it was.
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from labelmint.client import Client
from labelmint.errors import Denied, LabelmintError, NotFound, TimedOut, Unreachable, is_loading
from labelmint.wire.channel import Tls

Endpoint = tuple[str, int]  # host, port
_PROBE_S = 5.0  # time limit for the socket to connect, and again for its first byte
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
        found, fix = _diagnosis(endpoint, tls) if endpoint else ("", "")
        return [Check("connection", CheckStatus.FAIL, found or str(error), fix or _START, error)]
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


def endpoint_from_target(target: str) -> Endpoint | None:
    """Host and port of a gRPC target; None for targets of another kind, such as unix:/path."""
    rest = re.sub(r"^(dns:(//[^/]*/)?|ipv4:|ipv6:|passthrough:///)", "", target)
    match = re.fullmatch(r"(?:\[([^\]/]+)\]|([^:/,\[\]]+)):(\d{1,5})", rest)
    return (match[1] or match[2], int(match[3])) if match else None


def _diagnosis(endpoint: Endpoint, tls: Tls | None) -> tuple[str, str]:
    """The fault that a plain socket finds, and its fix; two empty texts if it finds none."""
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
        return f"{host} port {port} did not answer within {_PROBE_S:g} s", "check for a firewall"
    except (OSError, OverflowError) as error:
        return f"{host} port {port} cannot be reached: {error}", "correct --target"


def _plain_diagnosis(connected: socket.socket) -> tuple[str, str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only finds out whether the port speaks TLS; sends nothing
    try:
        context.wrap_socket(connected).close()
    except OSError:
        return "the port is open, but does not speak gRPC", "correct --target"
    return (
        "the server speaks TLS, and the client spoke plain text",
        "add --tls, or --authorities with the PEM file of the server's authority",
    )


def _tls_diagnosis(connected: socket.socket, name: str, tls: Tls) -> tuple[str, str]:
    try:
        context = ssl.create_default_context(cafile=tls.authorities)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.private_key)
    except OSError as error:  # includes ssl.SSLError
        files = [file for file in (tls.authorities, tls.certificate, tls.private_key) if file]
        listed = ", ".join(Path(file).name for file in files)
        return f"the PEM files cannot be used: {error}", f"correct {listed}"
    context.set_alpn_protocols(["h2"])
    try:
        secured = context.wrap_socket(connected, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        return f"the server's certificate is refused: {error.verify_message}", _untrusted(error)
    except TimeoutError:
        return "the port is open, but does not speak TLS", "correct --target"
    except OSError:
        return (
            "the server speaks plain text, and the client spoke TLS",
            "leave out --tls and the PEM files",
        )
    with secured:
        return ("", "") if _sends_a_byte(secured) else _hung_up(tls)


def _sends_a_byte(secured: ssl.SSLSocket) -> bool:
    """Whether the server talks after the handshake; False if it hangs up.

    With TLS 1.3 a server refuses a client's certificate after the handshake, often without a
    message.
    """
    try:
        return bool(secured.recv(1))
    except OSError:
        return False


def _hung_up(tls: Tls) -> tuple[str, str]:
    refused = "it may refuse this client's certificate"
    cause = refused if tls.certificate else "it may need a client certificate"
    return (
        f"the server hangs up after the TLS handshake: {cause}",
        "give --certificate and --private-key from an authority that the server trusts",
    )


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    expired, wrong_names = 10, (62, 64)  # X509_V_ERR_... of OpenSSL
    if error.verify_code == expired:
        return "renew the certificate on the server"
    if error.verify_code in wrong_names:
        return "use a --target or --server-name that the certificate names"
    return "give --authorities with the PEM file of the authority that signed the certificate"

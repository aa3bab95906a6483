"""What is wrong with a connection that gRPC could not make, found by plain sockets.

Enter: a target, and the client's TLS settings. Leave: the fault and its fix. gRPC reports most
faults as UNAVAILABLE, and of several addresses of a name only one's.
"""

from __future__ import annotations

import re
import socket
import ssl
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import grpc

from labelmint.errors import REFUSED_CONNECTION, RpcError, Unreachable, error_from_rpc
from labelmint.wire.addresses import addresses_of, text_of
from labelmint.wire.channel import Tls

PROBE_S = 5.0  # time limit for each socket to connect, and again for its first byte
MAX_ADDRESSES = 4  # of a name that are tried
_SHORT_S = 0.5  # PROBE_S of a client that composes an error
# What a client of HTTP/2 sends first: a fixed text, and an empty frame of settings.
_HTTP2_BEGIN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_FRAME_HEAD_BYTES, _FRAME_TYPE_AT, _SETTINGS = 9, 3, b"\x04"
_START = "start the server, or correct --target"
Endpoint = tuple[str, int]  # host, port


class Fault(NamedTuple):
    """What was found, and what to do."""

    found: str
    fix: str


_NOT_GRPC = Fault("the port is open, but does not speak gRPC", "correct --target")


def error_from_call(error: grpc.RpcError, target: str, tls: Tls | None) -> RpcError:
    """The typed error for a failed call to target; raise it `from` the original.

    gRPC names one address that it could not reach. If that one refused the connection, and another
    address of the same name takes it, the fault of that one is told.
    """
    typed = error_from_rpc(error, target)
    endpoint = endpoint_from_target(target)
    if endpoint and isinstance(typed, Unreachable) and REFUSED_CONNECTION in str(typed):
        fault = _fault_behind_refusal(endpoint, tls)
        if fault:
            return Unreachable(f"{target} is unreachable: {fault.found}; {fault.fix}", typed.code)
    return typed


def endpoint_from_target(target: str) -> Endpoint | None:
    """Host and port of a gRPC target; None for targets of another kind, such as unix:/path."""
    rest = re.sub(r"^(dns:(//[^/]*/)?|ipv4:|ipv6:|passthrough:///)", "", target)
    match = re.fullmatch(r"(?:\[([^\]/]+)\]|([^:/,\[\]]+)):(\d{1,5})", rest)
    return (match[1] or match[2], int(match[3])) if match else None


def fault_of_endpoint(endpoint: Endpoint, tls: Tls | None) -> Fault | None:
    """The fault that plain sockets find; None if they find none."""
    host, port = endpoint
    try:
        connected = _connected(endpoint, PROBE_S)
    except socket.gaierror as error:
        return Fault(
            f"the name {host} is unknown: {error.strerror}", "correct --target, or the DNS"
        )
    except ConnectionRefusedError:
        return Fault(f"nothing listens on {host} port {port}", _START)
    except TimeoutError:
        return Fault(
            f"{host} port {port} did not answer within {PROBE_S:g} s", "check for a firewall"
        )
    except (OSError, OverflowError, UnicodeError) as error:
        return Fault(f"{host} port {port} cannot be reached: {error}", "correct --target")
    with connected:
        return _fault_of_connection(connected, host, tls)


def _fault_behind_refusal(endpoint: Endpoint, tls: Tls | None) -> Fault | None:
    """The fault of an address that takes connections; None without one, or without a fault."""
    try:
        with _connected(endpoint, _SHORT_S) as connected:
            at = text_of(connected.getpeername())
            fault = _fault_of_connection(connected, endpoint[0], tls)
    except (OSError, OverflowError, UnicodeError):
        return None
    return fault and Fault(f"at {at}, {fault.found}", fault.fix)


def _connected(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    """A connection to the first address that takes it. Raises OSError, of several the one that
    says most; OverflowError and UnicodeError for what cannot be an address."""
    failed: list[OSError] = []
    for family, address in addresses_of(*endpoint)[:MAX_ADDRESSES]:
        try:
            with ExitStack() as on_failure:
                sock = on_failure.enter_context(socket.socket(family, socket.SOCK_STREAM))
                sock.settimeout(timeout_s)
                sock.connect(address)
                on_failure.pop_all()
                return sock
        except OSError as error:
            failed.append(error)
    raise min(failed, key=_rank)


def _rank(error: OSError) -> int:
    """0 for what says most: others are also those of IPv6 on a machine that has none."""
    kinds = (TimeoutError, ConnectionRefusedError, OSError)
    return next(rank for rank, kind in enumerate(kinds) if isinstance(error, kind))


def _fault_of_connection(connected: socket.socket, host: str, tls: Tls | None) -> Fault | None:
    if tls is None:
        return _plain_fault(connected)
    return _tls_fault(connected, tls.server_name or host, tls)


def _plain_fault(connected: socket.socket) -> Fault | None:
    try:
        at, timeout_s = connected.getpeername()[:2], connected.gettimeout()
    except OSError:  # it was reset meanwhile
        return _NOT_GRPC
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only finds out whether the port speaks TLS; sends nothing
    try:
        context.wrap_socket(connected).close()
    except OSError:
        return None if _answers_http2(at, timeout_s) else _NOT_GRPC
    return Fault(
        "the server speaks TLS, and the client spoke plain text",
        "add --tls, or --authorities with the PEM file of the server's authority",
    )


def _answers_http2(at: Endpoint, timeout_s: float | None) -> bool:
    """Whether the first frame of the other side has the type SETTINGS."""
    head = b""
    with suppress(OSError), socket.create_connection(at, timeout_s) as connected:
        connected.sendall(_HTTP2_BEGIN)
        while len(head) < _FRAME_HEAD_BYTES and (data := connected.recv(_FRAME_HEAD_BYTES)):
            head += data
    return head[_FRAME_TYPE_AT : _FRAME_TYPE_AT + 1] == _SETTINGS


def _tls_fault(connected: socket.socket, name: str, tls: Tls) -> Fault | None:
    try:
        context = ssl.create_default_context(cafile=tls.authorities)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.private_key)
    except OSError as error:  # includes ssl.SSLError
        files = [file for file in (tls.authorities, tls.certificate, tls.private_key) if file]
        listed = ", ".join(Path(file).name for file in files)
        return Fault(f"the PEM files cannot be used: {error}", f"correct {listed}")
    context.set_alpn_protocols(["h2"])
    try:
        secured = context.wrap_socket(connected, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        return Fault(
            f"the server's certificate is refused: {error.verify_message}", _untrusted(error)
        )
    except TimeoutError:
        return Fault("the port is open, but does not speak TLS", "correct --target")
    except OSError:
        return Fault(
            "the server speaks plain text, and the client spoke TLS",
            "leave out --tls and the PEM files",
        )
    with secured:
        return None if _sends_a_byte(secured) else _hung_up(tls)


def _sends_a_byte(secured: ssl.SSLSocket) -> bool:
    """Whether the server talks after the handshake; False if it hangs up.

    With TLS 1.3 a server refuses a client's certificate after the handshake, often without a
    message.
    """
    try:
        return bool(secured.recv(1))
    except OSError:
        return False


def _hung_up(tls: Tls) -> Fault:
    refused = "it may refuse this client's certificate"
    cause = refused if tls.certificate else "it may need a client certificate"
    return Fault(
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

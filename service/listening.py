"""HOST:PORT -> sockets that listen on it: at every address of the host, or at none.

gRPC is content with one of several addresses, and says so on standard error alone. Callers of the
others would then reach whatever process holds those.
"""

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from labelmint.errors import printable_from_text
from labelmint.wire.addresses import Address, addresses_of, text_of
from service.errors import StartError

ANY = ("0.0.0.0", "::")  # either is all addresses of the machine, of both families, as for gRPC
BACKLOG = 64  # connections that wait to be accepted
PORT_TRIES = 20  # of ports that are free at one address, for one that is free at all
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # such as ::1 on a machine without IPv6
_LISTENING = "0A"  # state in /proc/net/tcp
_NUMBER, _STATE, _INODE = 1, 3, 9  # columns there

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def listening_sockets(flag: str, host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on one port at every address of `host`; the caller closes them.

    Args:
        flag: the flag and value that are at fault if they cannot be bound, for messages.
        host: name or address, without brackets.
        port: 0: one that is free at every address.

    Raises:
        StartError: in one line, which names the process that holds the port, if it can be seen.
    """
    for _ in range(PORT_TRIES if port == 0 else 1):
        held = _bound(flag, host, port)
        if isinstance(held, list):
            return held
    raise _refused(flag, *held)


def address_of(bound: socket.socket) -> str:
    """HOST:PORT that a socket is bound to."""
    return text_of(bound.getsockname())


def _bound(flag: str, host: str, port: int) -> list[socket.socket] | tuple[Address, OSError]:
    """The sockets, or an address that cannot be bound and why."""
    with contextlib.ExitStack() as on_failure:
        sockets: list[socket.socket] = []
        absent: tuple[Address, OSError] | None = None
        for family, address in _addresses(flag, host, port):
            if sockets:  # the port that was free at the first address
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sockets.append(on_failure.enter_context(_bound_socket((family, address))))
            except OSError as error:
                if error.errno not in _ABSENT:
                    return (family, address), error
                absent = absent or ((family, address), error)
        if absent and not sockets:
            return absent
        on_failure.pop_all()
    return sockets


def _addresses(flag: str, host: str, port: int) -> list[Address]:
    if host in ANY:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6):
            return [(socket.AF_INET6, ("::", port, 0, 0))]  # with IPv4, see _bound_socket
        return [(socket.AF_INET, ("0.0.0.0", port))]
    try:
        return addresses_of(host, port)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a host name"
        raise StartError(
            f"{flag} cannot be bound: {host!r} has no address ({why}); give an address of this "
            "machine, or 0.0.0.0 for all"
        ) from error


def _bound_socket(address: Address) -> socket.socket:
    """Bound as gRPC binds it, and listening. Raises OSError."""
    family, at = address
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, at[0] not in ANY)
        bound.bind(at)
        bound.listen(BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def _refused(flag: str, address: Address, error: OSError) -> StartError:
    at = address[1]
    if error.errno == errno.EADDRINUSE:
        return StartError(
            f"{flag} cannot be bound: {_holder(at[0], at[1])} listens on {text_of(at)}; end it, or "
            "give another port"
        )
    if error.errno in _ABSENT:
        fix = f"{at[0]} is no address of this machine; give one, or 0.0.0.0 for all"
    elif error.errno == errno.EACCES:
        fix = "ports under 1024 need privileges; give a port from 1024"
    else:
        fix = "give another address or port"
    return StartError(f"{flag} cannot be bound to {text_of(at)}: {error.strerror}; {fix}")


def _holder(host: str, port: int) -> str:
    """Words for the process that listens on the port at this address, or at all addresses."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        inodes = {f"socket:[{inode}]" for inode in _listening_inodes(_ip(host), port)}
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            # Of processes of other users, and of those that end meanwhile, nothing is seen.
            with contextlib.suppress(OSError):
                if os.readlink(link) in inodes:
                    process = link.parents[1]
                    name = printable_from_text((process / "comm").read_text().strip())
                    return f"process {process.name} ({name})"
    return "another process"


def _listening_inodes(ip: Ip, port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            columns = line.split()
            number, _, in_hex = columns[_NUMBER].partition(":")
            if columns[_STATE] != _LISTENING or int(in_hex, 16) != port:
                continue
            other = _ip_from_hex(number)
            if ip == other or ip.is_unspecified or other.is_unspecified:
                yield columns[_INODE]


def _ip_from_hex(number: str) -> Ip:
    """ "0100007F" -> 127.0.0.1: the kernel shows words of 32 bits as numbers of this machine."""
    words = (int(number[at : at + 8], 16) for at in range(0, len(number), 8))
    return _ip(ipaddress.ip_address(b"".join(struct.pack("=I", word) for word in words)))


def _ip(address: str | Ip) -> Ip:
    """An address; one of IPv4 that is written as one of IPv6 as what it is."""
    ip = ipaddress.ip_address(address)
    return getattr(ip, "ipv4_mapped", None) or ip

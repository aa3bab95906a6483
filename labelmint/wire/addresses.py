"""Host name -> the addresses that gRPC connects to, or listens on, for it."""

from __future__ import annotations

import socket
from typing import Any

# Family, and what a socket of it connects to: host, port, and for IPv6 two numbers more.
Address = tuple[socket.AddressFamily, tuple[Any, ...]]


def addresses_of(host: str, port: int) -> list[Address]:
    """Addresses of a name, each once. Raises OSError, of which socket.gaierror is one, and
    UnicodeError for a name that cannot be one.

    localhost is both loopback addresses, as for gRPC, whatever /etc/hosts says.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses: list[Address] = [(family, address) for family, _, _, _, address in found]
    if host.lower() == "localhost":
        addresses += [
            (socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0)),
        ]  # fmt: skip
    return list(dict.fromkeys(addresses))


def text_of(address: tuple[Any, ...]) -> str:
    """HOST:PORT, with brackets around an address of IPv6."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

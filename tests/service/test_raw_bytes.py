"""Bytes that are no gRPC, on the port itself: the server drops them and goes on."""

import contextlib
import socket

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.harness import RunningServer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes(3) + b"\x04" + bytes(5)  # an empty SETTINGS frame

u8, u32 = st.integers(0, 255), st.integers(0, 2**32 - 1)
frames = st.builds(
    lambda length, kind, flags, stream, body: (
        length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
    ),
    st.integers(0, 2**24 - 1) | st.integers(0, 64), u8 | st.integers(0, 9), u8, u32 | u8,
    st.binary(max_size=64),
)  # fmt: skip
garbage = st.binary(max_size=200)
http1 = st.builds(
    lambda path: b"GET /" + path + b" HTTP/1.1\r\nHost: x\r\n\r\n", st.binary(max_size=40)
)
after_preface = st.lists(frames | garbage, max_size=6).map(
    lambda parts: PREFACE + SETTINGS + b"".join(parts)
)


def test_any_bytes_at_the_socket_leave_the_server_serving(server: RunningServer) -> None:
    address = ("127.0.0.1", server.server.port)

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=garbage | http1 | after_preface, half=st.booleans())
    def send(data: bytes, half: bool) -> None:
        # The server may hang up first, or say nothing.
        with contextlib.suppress(OSError), socket.create_connection(address, 5) as connection:
            connection.sendall(data)
            if half:
                connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.01)
            connection.recv(1 << 16)

    send()
    assert len(server.generate(count=3).batch.indices) == 3
    assert not server.server.failed.done()

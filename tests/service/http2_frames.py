"""HTTP/2 frames written by hand, for callers that no gRPC client would be."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.hangs import HANG_S

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4  # of SETTINGS
CANCEL = 8  # of RST_STREAM


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """One frame."""
    return (
        struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body
    )


def call_headers(path: str, stream: int, *more: tuple[str, str]) -> bytes:
    """The HEADERS frame that opens a gRPC call; literals, as a table would only be state."""
    pairs = (
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"),
        ("te", "trailers"), ("content-type", "application/grpc"), *more,
    )  # fmt: skip
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in pairs)
    return frame(HEADERS, END_HEADERS, stream, block)


def request_data(message: bytes, stream: int) -> bytes:
    """The DATA frame with a call's only request."""
    return frame(DATA, END_STREAM, stream, b"\x00" + struct.pack(">I", len(message)) + message)


def reset(stream: int) -> bytes:
    """The frame that cancels a call."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))


@contextmanager
def connection(port: int, window: int = 65_535) -> Iterator[socket.socket]:
    """A connection whose calls may be sent `window` bytes each; no window is ever opened further,
    and what arrives is thrown away."""
    with socket.create_connection(("127.0.0.1", port), HANG_S) as opened:
        setting = struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        opened.sendall(PREFACE + frame(SETTINGS, 0, 0, setting) + frame(SETTINGS, ACK, 0))
        reader = threading.Thread(target=_answer_pings, args=(opened,), daemon=True)
        reader.start()
        try:
            yield opened
        finally:
            with contextlib.suppress(OSError):  # the server has hung up
                opened.shutdown(socket.SHUT_RDWR)
            reader.join()


def _answer_pings(opened: socket.socket) -> None:
    """Reads all frames and answers pings, without which the server would hang up."""
    with contextlib.suppress(OSError), opened.makefile("rb") as frames:
        while head := frames.read(9):
            body = frames.read(int.from_bytes(head[:3], "big"))
            if head[3] == PING and not head[4] & ACK:
                opened.sendall(frame(PING, ACK, 0, body))


def _text(text: str) -> bytes:
    """A string literal of HPACK, shorter than 127 bytes."""
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()

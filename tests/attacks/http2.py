"""Raw HTTP/2 frames over a socket: what no gRPC client would send.

Enter: frames and header blocks, as a test writes them. Leave: bytes on a socket, and what the
server answered. Nothing checks that they make sense, which is the point.
"""

import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8, 0x9,
)  # fmt: skip
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
MAX_FRAME_BYTES = 16_384  # of a payload, unless the server's settings allow more
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 0x3, 0x4  # settings
CANCEL = 0x8  # an error code of RST_STREAM
STATIC_ENTRIES = 61  # of HPACK's table; the first dynamic entry follows
FIRST_WINDOW_BYTES = 65_535  # what may be sent before the server allows more

Header = tuple[bytes, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame with its header of nine bytes."""
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes((kind, flags))
        + (struct.pack(">I", stream) + payload)
    )


def frames_of_headers(stream: int, block: bytes, end_stream: bool = False) -> bytes:
    """HEADERS and CONTINUATION frames of one header block."""
    pieces = [block[at : at + MAX_FRAME_BYTES] for at in range(0, len(block), MAX_FRAME_BYTES)]
    frames = []
    for number, piece in enumerate(pieces):
        kind = CONTINUATION if number else HEADERS
        flags = (END_HEADERS if number == len(pieces) - 1 else 0) | (
            END_STREAM if end_stream and not number else 0
        )
        frames.append(frame(kind, flags, stream, piece))
    return b"".join(frames)


def frames_of_data(stream: int, data: bytes, end_stream: bool = False) -> bytes:
    """DATA frames of these bytes."""
    starts = range(0, len(data), MAX_FRAME_BYTES)
    return b"".join(
        frame(
            DATA,
            END_STREAM if end_stream and at == starts[-1] else 0,
            stream,
            data[at : at + MAX_FRAME_BYTES],
        )
        for at in starts
    )


def integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    """HPACK's integer: `first` holds the bits before the prefix."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes((first | value,))
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))


def literal(name: bytes, value: bytes, indexed: bool = False) -> bytes:
    """A header without a reference; `indexed` also puts it into the server's table."""
    first = 0x40 if indexed else 0x00
    return bytes((first,)) + integer(len(name), 7) + name + integer(len(value), 7) + value


def reference(entry: int) -> bytes:
    """A header of the table: the dynamic entry with this number, 0 for the newest."""
    return integer(STATIC_ENTRIES + 1 + entry, 7, 0x80)


def request_headers(path: str, extra: Sequence[Header] = ()) -> bytes:
    """The header block of a gRPC call, all literals."""
    headers = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()),
        (b":authority", b"localhost"), (b"te", b"trailers"),
        (b"content-type", b"application/grpc"), *extra,
    ]  # fmt: skip
    return b"".join(literal(name, value) for name, value in headers)


def call(path: str, stream: int, body: bytes = b"") -> bytes:
    """All frames of a call with one request."""
    headers = frames_of_headers(stream, request_headers(path))
    return headers + frames_of_data(stream, message(body), end_stream=True)


def reset(stream: int) -> bytes:
    """The frame that cancels a call."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))


def message(body: bytes, announced: int | None = None) -> bytes:
    """A gRPC message: its prefix of five bytes may announce another length than the body's."""
    return b"\0" + struct.pack(">I", len(body) if announced is None else announced) + body


class Connection:
    """A connection whose answers a thread of its own reads and counts."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._lock = sock, threading.Lock()
        self._changed = threading.Condition()
        self.frames: Counter[int] = Counter()  # frames from the server by kind
        self.settings: dict[int, int] = {}  # of the server
        self.ended: dict[int, bytes] = {}  # by stream: its last HEADERS, or b"" after RST_STREAM
        self.goaway: bytes | None = None
        self.closed = False  # by the server
        self._window = FIRST_WINDOW_BYTES  # of the connection
        self._windows: dict[int, int] = {}  # of each stream, beyond the initial one
        self._next = 1
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def new_stream(self) -> int:
        """Number of a stream that was not used yet."""
        self._next += 2
        return self._next - 2

    def send(self, data: bytes) -> bool:
        """Writes bytes as they are; whether the server still takes them."""
        with self._lock:
            try:
                self._sock.sendall(data)
            except OSError:
                return False
        return True

    def send_body(self, stream: int, data: bytes, wait_s: float) -> int:
        """Sends DATA within the windows that the server grants.

        Returns the number of bytes sent: fewer if for `wait_s` no window opens, or the stream ends.
        """
        sent = 0
        while sent < len(data):
            with self._changed:
                if not self._changed.wait_for(lambda: self._ready(stream), wait_s):
                    return sent
                if self.closed or stream in self.ended:
                    return sent
                size = min(len(data) - sent, self._room(stream), 4 * MAX_FRAME_BYTES)
                self._window -= size
                self._windows[stream] = self._windows.get(stream, 0) - size
            if not self.send(frames_of_data(stream, data[sent : sent + size])):
                return sent
            sent += size
        return sent

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether `condition` comes true in time, or at last when the server hangs up.

        It is looked at after each frame.
        """
        with self._changed:
            self._changed.wait_for(lambda: condition() or self.closed, timeout_s)
            return condition()

    def close(self) -> None:
        """Hangs up."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._sock.close()

    def _room(self, stream: int) -> int:
        first = self.settings.get(INITIAL_WINDOW_SIZE, FIRST_WINDOW_BYTES)
        return min(self._window, first + self._windows.get(stream, 0))

    def _ready(self, stream: int) -> bool:
        return self.closed or stream in self.ended or self._room(stream) > 0

    def _read(self) -> None:
        try:
            while True:
                head = self._exactly(9)
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
                self._take(kind, flags, stream, self._exactly(length))
        except (OSError, EOFError):
            with self._changed:
                self.closed = True
                self._changed.notify_all()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        # Before the frame is counted: who waits for it finds the server's settings in force.
        if kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        with self._changed:
            self.frames[kind] += 1
            if kind == WINDOW_UPDATE:
                more = int.from_bytes(payload, "big")
                if stream:
                    self._windows[stream] = self._windows.get(stream, 0) + more
                else:
                    self._window += more
            elif kind == SETTINGS and not flags & ACK:
                pairs = [payload[at : at + 6] for at in range(0, len(payload), 6)]
                self.settings |= {
                    int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big")
                    for pair in pairs
                }
            elif kind == RST_STREAM:
                self.ended.setdefault(stream, b"")
            elif kind == HEADERS and flags & END_STREAM:
                self.ended[stream] = payload
            elif kind == GOAWAY:
                self.goaway = payload[8:]
            self._changed.notify_all()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._sock.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


@contextmanager
def connected(
    port: int,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    window: int = FIRST_WINDOW_BYTES,
) -> Iterator[Connection]:
    """A connection after its preface, which waits for the server's settings.

    The server may send `window` bytes of each call, and no more is ever granted.
    """
    sock = socket.create_connection((host, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is not None:
        sock = tls.wrap_socket(sock, server_hostname="localhost")
    setting = struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
    # Before the reader may acknowledge anything.
    sock.sendall(PREFACE + frame(SETTINGS, 0, 0, setting))
    connection = Connection(sock)
    try:
        connection.wait(lambda: connection.frames[SETTINGS] > 0 or connection.closed, 60)
        yield connection
    finally:
        connection.close()

"""A DNS server on this machine, for a name whose addresses may change."""

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

HEADER_BYTES, MOST_BYTES = 12, 512
ANSWERED, A_RECORD, INTERNET = 0x8580, 1, 1
FIRST_NAME = 0xC000 + HEADER_BYTES  # where the answers' name stands: in the question


class NameServer:
    """Answers every query with its addresses, with a TTL of 0."""

    def __init__(self, questions: socket.socket, addresses: Sequence[str]) -> None:
        self.addresses = tuple(addresses)  # to be replaced from any thread
        self.port = int(questions.getsockname()[1])
        self._questions = questions

    def run(self) -> None:
        """Answers until the socket is shut down."""
        while True:
            question, sender = self._questions.recvfrom(MOST_BYTES)
            if not question:
                return
            self._questions.sendto(answer_to(question, self.addresses), sender)


def answer_to(question: bytes, addresses: Sequence[str]) -> bytes:
    """The answer to a resolver's query."""
    name_end = question.index(0, HEADER_BYTES) + 1
    (kind,) = struct.unpack_from("!H", question, name_end)
    found = addresses if kind == A_RECORD else ()
    header = question[:2] + struct.pack("!5H", ANSWERED, 1, len(found), 0, 0)
    record = struct.pack("!3HIH", FIRST_NAME, A_RECORD, INTERNET, 0, 4)
    records = b"".join(record + socket.inet_aton(address) for address in found)
    return header + question[HEADER_BYTES : name_end + 4] + records


@contextmanager
def named(*addresses: str) -> Iterator[NameServer]:
    """Runs a name server until the block ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as questions:
        questions.bind(("127.0.0.1", 0))
        server = NameServer(questions, addresses)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            questions.sendto(b"", ("127.0.0.1", server.port))
            thread.join()

"""Connections of the studio's port: one whose other end does nothing makes room for one that does.

Any program on the machine can connect, without a token, and a page of another site can make the
browser do it; a tab that the browser has put to sleep reads nothing. uvicorn waits for a request,
and for the reader of an answer, for as long as they like, and answers nothing but 503 once there
are too many connections. Those that have sent the token make room last.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from studio.safety import ADMITTED

MAX_CONNECTIONS = 256


class PatientProtocol(H11Protocol):
    """Closes a connection whose other end neither sends the rest of a request nor reads an answer:
    after a time, or when others need its place."""

    # For the head of a request, from the first connection or the last answer on; for each next part
    # of its body; for the reader of an answer to take some of what the buffer has.
    patience_s = 20.0
    _waiting_since: float | None = None  # on the loop's clock; None: it is the studio's turn
    _unread = 0  # bytes in the buffer at the last look
    _admitted = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Makes room, if need be, and begins to wait for a request."""
        waiting = [c for c in self.connections if isinstance(c, PatientProtocol) and c.is_waiting]
        if len(self.connections) >= MAX_CONNECTIONS - 1 and waiting:
            min(waiting, key=lambda one: (one.is_admitted, one._waiting_since or 0.0)).give_up()
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        self._go_on()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Takes in what has come: the end of a request ends the wait, a part of its body begins it
        anew, a part of its head does neither."""
        super().handle_events()
        if self.cycle is None or self.cycle.response_complete or self.flow.write_paused:
            return
        if self.cycle.more_body:
            self._wait()
        else:
            self._go_on()

    def on_response_complete(self) -> None:
        """Waits for the next request, which may be here already, and for the answer's reader."""
        self._admitted = self.is_admitted
        self._wait()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Waits for the reader."""
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """Goes on with the answer, if it has more."""
        super().resume_writing()
        if self.cycle is not None and not self.cycle.response_complete:
            self._go_on()

    @property
    def is_waiting(self) -> bool:
        """Whether it is the other end's turn."""
        return self._waiting_since is not None

    @property
    def is_admitted(self) -> bool:
        """Whether a request has had the token."""
        return self._admitted or bool(self.scope and ADMITTED in self.scope)

    def look(self) -> None:
        """Waits on if some of an answer was read meanwhile, and gives up else."""
        if self.transport.get_write_buffer_size() < self._unread:
            self._wait()
        else:
            self.give_up()

    def give_up(self) -> None:
        """Closes the connection."""
        self.connections.discard(self)
        self._go_on()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # nobody reads the answer
        elif not self.transport.is_closing():
            self.transport.close()

    def _wait(self) -> None:
        self._go_on()
        self._waiting_since = self.loop.time()
        self._unread = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(self.patience_s, self.look)

    def _go_on(self) -> None:
        self._waiting_since = None
        if self._timer is not None:
            self._timer.cancel()

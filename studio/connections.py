"""Connections of the studio's port: one that asks nothing makes room for one that does.

Any program on the machine can connect, without a token, and a page of another site can make the
browser do it. uvicorn waits for a request for as long as its sender likes, and answers nothing but
503 once there are too many connections.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 256


class PatientProtocol(H11Protocol):
    """Closes a connection without a request: after a time, or when others need its place."""

    request_s = 20.0  # for the head of a request, from the first connection or the last answer on
    _waiting_since: float | None = None  # on the loop's clock; None: a request is being answered
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Makes room, if need be, and begins to wait for a request."""
        waiting = [c for c in self.connections if isinstance(c, PatientProtocol) and c.is_waiting]
        if len(self.connections) >= MAX_CONNECTIONS - 1 and waiting:
            min(waiting, key=lambda one: one._waiting_since or 0.0).give_up()
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        self._answer()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Takes in what has come, of which the head of a request ends the wait."""
        cycle = self.cycle
        super().handle_events()
        if self.cycle is not cycle:
            self._answer()

    def on_response_complete(self) -> None:
        """Waits for the next request, which may be here already."""
        self._wait()
        super().on_response_complete()

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered."""
        return self._waiting_since is not None

    def give_up(self) -> None:
        """Closes the connection."""
        self.connections.discard(self)
        self._answer()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # nobody reads the last answer
        elif not self.transport.is_closing():
            self.transport.close()

    def _wait(self) -> None:
        self._answer()
        self._waiting_since = self.loop.time()
        self._timer = self.loop.call_later(self.request_s, self.give_up)

    def _answer(self) -> None:
        self._waiting_since = None
        if self._timer is not None:
            self._timer.cancel()

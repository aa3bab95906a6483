"""Forks: neither grpc nor threads survive one, so what has them belongs to the process it is of."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from labelmint.errors import ClientClosed


@dataclass(frozen=True)
class Home:
    """The process that something was made in."""

    pid: int = field(default_factory=os.getpid)

    @property
    def is_here(self) -> bool:
        """Whether this is it, not a fork of it."""
        return self.pid == os.getpid()

    def check(self) -> None:
        """Raises ClientClosed in a fork."""
        if not self.is_here:
            raise ClientClosed(
                f"the client is of process {self.pid}, and this is its fork {os.getpid()}; make a "
                "Client in each process"
            )

"""One server for all tests of the room that do not need their own."""

from collections.abc import Iterator

import pytest

from tests.service.harness import RunningServer, served


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """Serves one fake model of 16 px, batch 8."""
    with served() as running:
        yield running

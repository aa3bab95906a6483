"""A scripted server for tests that need the real wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.client.scripted_service import ScriptedService, serving

# Shared machines stall for longer than any example takes; a timed test would only flicker.
settings.register_profile("labelmint", deadline=None, max_examples=50)
settings.load_profile("labelmint")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, ScriptedService]]:
    with serving() as (target, service):
        yield target, service


@pytest.fixture
def target(server: tuple[str, ScriptedService]) -> str:
    return server[0]


@pytest.fixture
def service(server: tuple[str, ScriptedService]) -> Iterator[ScriptedService]:
    server[1].reset()
    yield server[1]
    server[1].reset()

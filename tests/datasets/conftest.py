"""A server of fake engines, common to the tests that do not break theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engines.fake import fake_bundle
from tests.service.harness import FakeModel, RunningServer, served


@pytest.fixture(scope="package")
def server() -> Iterator[RunningServer]:
    with served() as running:
        yield running


@pytest.fixture(scope="package")
def bare_server() -> Iterator[RunningServer]:
    """Its model makes images and nothing else."""
    with served([FakeModel(bundle=fake_bundle(resolution=16, heads=False))]) as running:
        yield running

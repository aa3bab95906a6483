"""A server of objects with views, and folders downloaded from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.fake import fake_bundle
from tests.datasets.folders import made
from tests.service.harness import FakeModel, RunningServer, served
from tests.training.downloads import FORMATS, VIEWS, WHOLE


@pytest.fixture(scope="module")
def bank_server() -> Iterator[RunningServer]:
    """One model, whose bank has five views."""
    with served([FakeModel(bundle=fake_bundle(resolution=16, view_codes=VIEWS))]) as running:
        yield running


@pytest.fixture(scope="module")
def folders(bank_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six objects with five views each, in both formats. Do not change them."""
    root = tmp_path_factory.mktemp("downloads")
    for name, options in FORMATS.items():
        made(bank_server, root / name, *options, *WHOLE)
    return root

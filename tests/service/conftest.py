"""One server for all tests of the service that do not need their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.harness import RunningServer, served
from tests.service.identities import TOKENS


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """Serves one fake model of 16 px, batch 8."""
    with served() as running:
        yield running


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A file of the tokens in TOKENS."""
    path = tmp_path / "tokens"
    path.write_text("# who\n\n" + "".join(f"{n} {t}\n" for n, t in TOKENS.items()))
    return path

"""Fixtures of the service's tests that attacks use too."""

from tests.service.conftest import server, tokens

__all__ = ["server", "tokens"]

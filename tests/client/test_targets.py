"""Whom a client asks, and as whom: targets and tokens, given or of the environment."""

from __future__ import annotations

import pytest

from labelmint import Client
from tests.client.scripted_service import ScriptedService


def test_the_environment_gives_target_and_token(
    target: str, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELMINT_TARGET", target)
    monkeypatch.setenv("LABELMINT_TOKEN", "secret")
    with Client() as client:
        client.models()
        assert service.metadata["authorization"] == "Bearer secret"
        next(client.stream())
        assert service.metadata["authorization"] == "Bearer secret"
    with Client(token="given") as client:
        client.generate(count=1)
        assert service.metadata["authorization"] == "Bearer given"
    monkeypatch.delenv("LABELMINT_TARGET")
    with pytest.raises(ValueError, match="LABELMINT_TARGET"):
        Client()


@pytest.mark.parametrize(
    "wrong",
    ["localhost", "localhost:", ":50051", "localhost:0", "localhost:65536", "localhost:99999",
     "localhost:\uff15", "http://localhost:50051", "localhost:50051/", "::1:50051", "dns:///name",
     ["localhost:1", ""]],
)  # fmt: skip
def test_a_target_without_host_or_port_is_refused_before_any_call(wrong: str | list[str]) -> None:
    with pytest.raises(ValueError, match="is not host:port, with a port from 1 to 65535"):
        Client(wrong)


@pytest.mark.parametrize(
    "right",
    ["localhost:1", "10.0.0.1:65535", "[::1]:50051", "dns:///name:50051", "dns:name:50051",
     "dns://127.0.0.1:53/name.svc:50051", "ipv4:127.0.0.1:1,127.0.0.1:2", "unix:/run/a.sock",
     "localhost:1, localhost:2"],
)  # fmt: skip
def test_targets_as_grpc_names_them_are_taken(right: str) -> None:
    Client(right).close()


def test_the_line_break_at_the_end_of_a_token_file_is_no_part_of_the_token(
    target: str, service: ScriptedService
) -> None:
    with Client(target, token=" secret\n") as client:
        client.models()
    assert service.metadata["authorization"] == "Bearer secret"


@pytest.mark.parametrize("token", ["two words", "two\nlines", "schlüssel", "nul\0"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ValueError, match="give one word") as caught:
        Client("localhost:1", token=token)
    assert token not in str(caught.value)

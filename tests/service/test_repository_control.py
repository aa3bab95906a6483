"""Administrators load and unload models by calls; nobody else does."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from service.config import Config, NamedBundle
from service.rpc import inference_messages as messages
from tests.service.harness import RunningServer, refusal, served
from tests.service.inference_calls import ask, call, index_of
from tests.service.test_process import bundle_at
from tests.service.test_repository import Held, config, status_of_health

ADMIN = (("authorization", "Bearer " + "a" * 20),)
C = grpc.StatusCode


@pytest.fixture
def admins(tmp_path: Path) -> Path:
    path = tmp_path / "admins"
    path.write_text(f"ops {'a' * 20}\n")
    return path


@pytest.fixture
def controlled(admins: Path, tmp_path: Path) -> Iterator[RunningServer]:
    """Serves FakeModel; a load of `fake` takes the folder of that name on disk."""
    bundles = (NamedBundle("fake", bundle_at(tmp_path / "controlled")),)
    with served(config=Config(bundles, "127.0.0.1:0", 0, "fake", admin_token_file=admins)) as s:
        yield s


def control(server: RunningServer, verb: str, name: str = "fake", **options: Any) -> Any:
    method = f"RepositoryModel{verb}"
    request = getattr(messages, f"{method}Request")(model_name=name)
    return call(server.channel, method, request, **{"metadata": ADMIN, **options})


def test_administrators_unload_and_load_and_readiness_follows(controlled: RunningServer) -> None:
    control(controlled, "Unload")
    assert refusal(lambda: controlled.generate(count=1, model="fake")).code is C.NOT_FOUND
    assert refusal(lambda: controlled.generate(count=1)).code is C.UNAVAILABLE
    assert status_of_health(controlled) == health_pb2.HealthCheckResponse.NOT_SERVING
    assert not ask(controlled.channel, "ModelReady", name="fake").ready
    assert not ask(controlled.channel, "ServerReady").ready
    assert ask(controlled.channel, "ServerLive").live
    assert index_of(controlled.channel)["fake"].reason == "unloaded"
    control(controlled, "Load")
    assert controlled.generate(count=1, model="fake").batch.indices
    assert status_of_health(controlled) == health_pb2.HealthCheckResponse.SERVING
    assert ask(controlled.channel, "ModelReady", name="fake").ready


def test_loading_by_calls_is_for_administrators_alone(
    controlled: RunningServer, admins: Path, tmp_path: Path
) -> None:
    for verb in ("Load", "Unload"):
        for metadata in ((), (("authorization", "Bearer " + "b" * 20),)):
            refused = refusal(partial(control, controlled, verb, metadata=metadata))
            assert refused.code is C.PERMISSION_DENIED
            assert refusal(partial(control, controlled, verb, "x")).code is C.NOT_FOUND
    callers = tmp_path / "callers"
    callers.write_text(f"trainer {'t' * 20}\n")
    with served(config=config(admin_token_file=admins, token_file=callers)) as server:
        trainer = (("authorization", "Bearer " + "t" * 20),)
        refused = refusal(lambda: control(server, "Unload", metadata=trainer))
        assert refused.code is C.PERMISSION_DENIED
        assert refusal(lambda: control(server, "Unload", metadata=())).code is C.UNAUTHENTICATED
        control(server, "Unload")
    with served(config=config()) as server:
        for verb in ("Load", "Unload"):
            assert refusal(partial(control, server, verb)).code is C.UNIMPLEMENTED


@pytest.mark.parametrize(
    "name", ["../other", "/etc", "", ".", "..", "x/../other", "\0", "é" * 3000]
)
def test_names_lead_nowhere_but_into_the_watched_directory(
    admins: Path, tmp_path: Path, name: str
) -> None:
    bundle_at(tmp_path / "other")
    (tmp_path / "watched").mkdir()
    with served(config=config(admin_token_file=admins, watch=tmp_path / "watched")) as server:
        refused = refusal(lambda: control(server, "Load", name))
        assert refused.code is C.NOT_FOUND
        assert str(tmp_path) not in refused.message


def test_options_of_models_are_not_the_callers(controlled: RunningServer) -> None:
    request = messages.RepositoryModelLoadRequest(model_name="fake")
    request.parameters["config"].string_param = "{}"
    load_it = partial(call, controlled.channel, "RepositoryModelLoad", metadata=ADMIN)
    assert refusal(lambda: load_it(request)).code is C.INVALID_ARGUMENT
    request = messages.RepositoryModelLoadRequest(model_name="fake", repository_name="x")
    assert refusal(lambda: load_it(request)).code is C.INVALID_ARGUMENT


def test_a_caller_that_leaves_does_not_stop_a_load(admins: Path, tmp_path: Path) -> None:
    held = Held("slow")
    given = Config((NamedBundle("slow", tmp_path),), "127.0.0.1:0", admin_token_file=admins)
    with served(config=given, open_named=held) as server:
        refused = refusal(lambda: control(server, "Load", "slow", timeout=0.5))
        assert refused.code is C.DEADLINE_EXCEEDED
        assert index_of(server.channel)["slow"].state == "LOADING"
        held.released.set()
        while index_of(server.channel)["slow"].state == "LOADING":
            time.sleep(0.01)
        assert "manifest" in index_of(server.channel)["slow"].reason


def test_an_unload_call_is_answered_while_a_load_call_is_open(admins: Path, tmp_path: Path) -> None:
    held = Held("slow")
    given = Config((NamedBundle("slow", tmp_path),), "127.0.0.1:0", admin_token_file=admins)
    with served(config=given, open_named=held) as server, ThreadPoolExecutor() as pool:
        loading = pool.submit(refusal, partial(control, server, "Load", "slow"))
        while "slow" not in index_of(server.channel):
            time.sleep(0.01)
        control(server, "Unload", "slow")
        refused = loading.result()
        assert refused.code is C.FAILED_PRECONDITION and "was unloaded while" in refused.message
        assert index_of(server.channel)["slow"].reason == "unloaded"
        held.released.set()

"""A service that is still loading its models: clients wait for it, and doctor says so."""

from __future__ import annotations

import asyncio

import pytest

from labelmint import Client, Patience
from labelmint.cli import main
from service.config import Config
from service.metrics import Metrics
from service.server import Server
from tests.service.harness import FakeModel

CONFIG = Config(bundles=(), listen="127.0.0.1:0", metrics_port=0)


def test_a_trainer_started_together_with_its_server_works() -> None:
    async def trained() -> tuple[str, int]:
        metrics = Metrics()
        async with Server(CONFIG, metrics).running() as server:
            impatient = Patience(connect_s=0.0, first_wait_s=0.01)

            def train() -> tuple[str, int]:
                with Client(f"127.0.0.1:{server.port}", patience=impatient) as client:
                    name = client.model().name
                    return name, sum(map(len, client.stream(4, count=8, model=name)))

            training = asyncio.create_task(asyncio.to_thread(train))
            await asyncio.sleep(0.3)
            assert not training.done()
            await server.serve([FakeModel().opened(metrics)])
            return await training

    assert asyncio.run(trained()) == ("fake", 8)


def test_doctor_tells_a_server_that_is_loading_from_one_that_speaks_no_grpc(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def examined() -> int:
        async with Server(CONFIG, Metrics()).running() as server:
            arguments = ["doctor", "--target", f"127.0.0.1:{server.port}"]
            return await asyncio.to_thread(main, arguments)

    assert asyncio.run(examined()) == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("fail connection") and "the server is loading" in last
    assert "wait until its models are loaded" in last

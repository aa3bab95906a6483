"""MT19937 streams cost all rows before their indices, and nobody else pays for that."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from engines.fake import fake_bundle
from labelmint.latents import latents_mt19937
from labelmint.v1 import label_service_pb2 as pb
from tests.hangs import HANG_S, eventually
from tests.service.harness import FakeModel, RunningServer, served

FAR = 16  # requests, each of a million rows of 512 numbers: minutes of work


@pytest.fixture
def wide() -> Iterator[RunningServer]:
    """Serves a model with as many latents as a published one."""
    bundle = fake_bundle(resolution=16)
    generator = msgspec.structs.replace(bundle.manifest.generator, z_dim=512)
    manifest = msgspec.structs.replace(bundle.manifest, generator=generator)
    with served([FakeModel(bundle=replace(bundle, manifest=manifest))]) as server:
        yield server


def sampling(seed: int) -> pb.SamplingOptions:
    return pb.SamplingOptions(seed=seed, latent_source=pb.LATENT_SOURCE_MT19937)


def open_mt19937_streams(server: RunningServer) -> int:
    models = server.server.repository.models.values()
    return sum(model.ahead.streams for model in models)


def test_far_indices_hold_no_other_request(wide: RunningServer) -> None:
    """Neither one of other latents, nor a near one of the same kind."""
    far = [
        wide.stub.GenerateSamples.future(
            pb.GenerateSamplesRequest(
                query=pb.SampleQuery(sampling=sampling(n), indices=[n, 999_999 - n])
            ),
            timeout=HANG_S,
        )
        for n in range(FAR)
    ]
    assert eventually(lambda: open_mt19937_streams(wide) == FAR)
    assert list(wide.generate(count=20).batch.indices) == list(range(20))
    near = wide.generate(count=3, start_index=50, sampling=sampling(99))
    assert list(near.batch.indices) == [50, 51, 52]
    assert not any(call.done() for call in far)
    for call in far:
        call.cancel()
    assert eventually(lambda: not open_mt19937_streams(wide))  # and no row is drawn for nobody


def test_a_far_stream_has_heartbeats_while_rows_before_it_are_drawn(wide: RunningServer) -> None:
    call = wide.stream(start_index=999_000, sampling=sampling(1))
    assert next(iter(call)).next_index == 999_000
    call.cancel()


@pytest.mark.parametrize(
    "query",
    [
        {"indices": [0, 5, 9_000, 70_000, 200_000]},  # a turn is 65,536 rows here
        {"start_index": 65_530, "count": 20},
        {"start_index": 3, "end_index": 150_000, "num_shards": 5_000, "shard_index": 17},
    ],
)
def test_rows_are_the_sequences_own_across_turns(
    server: RunningServer, query: dict[str, Any]
) -> None:
    messages = list(server.stream(sampling=sampling(7), outputs=[pb.OUTPUT_W], **query))
    indices = [i for message in messages for i in message.batch.indices]
    rows = [
        np.frombuffer(tensor.data, np.float32).reshape(tensor.shape)[:, 0]
        for message in messages
        for tensor in message.batch.tensors
    ]
    assert indices
    assert np.array_equal(np.concatenate(rows), latents_mt19937(7, np.array(indices), 16))

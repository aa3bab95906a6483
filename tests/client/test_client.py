"""Client: the promises of the stream over the real wire."""

from __future__ import annotations

import threading
import time
from functools import partial

import grpc
import numpy as np
import pytest

from labelmint import Client, Patience, codec
from labelmint.errors import Denied, Invalid, NotFound, Refused, TimedOut, Unreachable
from labelmint.options import StreamOptions
from labelmint.v1 import label_service_pb2 as pb
from tests.client.scripted_service import CLOSED_PORT, Ended, Script, ScriptedService, keeps, sample


def test_the_loop_of_the_readme(target: str) -> None:
    indices: list[int] = []
    with Client(target) as client:
        for batch in client.stream(batch_size=16, seed=7, keep_fraction=0.9, count=100):
            assert batch.images is not None and batch.masks is not None
            assert batch.keypoints is not None and batch.depth is not None
            assert batch.uncertainty is not None
            assert batch.uncertainty_map is None and batch.w is None
            truth = sample(7, int(batch.indices[0]))
            assert (batch.images[0] == truth["image"][0]).all()
            assert (batch.depth[0] == truth["depth"][0]).all()
            assert batch.uncertainty.max() <= np.float32(0.9)
            assert batch.bundle_id == "sha256:scripted"
            indices += batch.indices.tolist()
    query = pb.SampleQuery(filter=pb.Filter(mode=pb.FILTER_MODE_KEEP_FRACTION, keep_fraction=0.9))
    query.sampling.seed = 7
    assert indices == [i for i in range(200) if keeps(query, i)][:100]


@pytest.mark.parametrize("streams", [1, 3])
def test_streams_are_the_same_however_they_are_split(target: str, streams: int) -> None:
    options = StreamOptions(
        seed=3, max_uncertainty=0.4, start_index=11, end_index=400, views_per_object=2,
        num_shards=3, shard_index=1, outputs=["uncertainty", "w"],
    )  # fmt: skip
    with Client(target) as one, Client(target, streams=streams) as several:
        expected = list(one.stream(5, **options))
        got = list(several.stream(5, **options))
    assert [batch.indices.tolist() for batch in got] == [b.indices.tolist() for b in expected]
    for left, right in zip(got, expected, strict=True):
        assert left.w is not None and right.w is not None
        assert (left.w == right.w).all()


def test_a_drained_server_is_asked_again_where_it_stopped(
    target: str, service: ScriptedService
) -> None:
    service.script = Script(messages_until_drop=2)
    with Client(target) as client:
        batches = list(client.stream(4, count=20, outputs=["mask"]))
    assert [index for batch in batches for index in batch.indices] == list(range(20))
    first, second = service.queries
    assert (first.start_index, first.count, first.bundle_id) == (0, 20, "")
    assert (second.start_index, second.count) == (4, 16)
    assert second.bundle_id == "sha256:scripted"


def test_two_streams_of_one_client_run_side_by_side(target: str) -> None:
    with Client(target) as client:
        pairs = zip(client.stream(2, seed=1, count=20), client.stream(2, seed=2), strict=False)
        for left, right in pairs:
            assert left.indices.tolist() == right.indices.tolist()
            assert left.images is not None and right.images is not None
            assert (left.images != right.images).any()


def test_options_reach_the_server(target: str, service: ScriptedService) -> None:
    rows = np.arange(16, dtype=np.float64).reshape(2, 8)
    with Client(target) as client:
        list(
            client.stream(
                model="scripted", bundle_id="sha256:scripted", seed=2**64 - 1,
                latent_source="mt19937", truncation_psi=0.0, truncation_cutoff=3,
                views_per_object=2, max_uncertainty=0.5, filter_sets=True, end_index=8,
                outputs=["mask", "image"], codecs=["zstd", "jpeg"], jpeg_quality=80,
                max_message_bytes=1 << 20, max_message_samples=8, weight=3, num_shards=1,
                max_examined=1000,
            )
        )  # fmt: skip
        assert len(client.generate(z=rows, start_index=1)) == 1
    query, explicit = service.queries
    assert query.sampling == pb.SamplingOptions(
        seed=2**64 - 1, latent_source=pb.LATENT_SOURCE_MT19937, truncation_psi=0.0,
        truncation_cutoff=3, views_per_object=2,
    )  # fmt: skip
    assert query.sampling.HasField("truncation_psi")
    assert not query.sampling.HasField("class_index")
    assert query.filter == pb.Filter(
        mode=pb.FILTER_MODE_MAX_UNCERTAINTY, max_uncertainty=0.5, filter_sets=True
    )
    assert list(query.outputs) == [pb.OUTPUT_MASK, pb.OUTPUT_IMAGE]
    assert list(query.accept_codecs) == [pb.CODEC_ZSTD, pb.CODEC_JPEG]
    assert (query.jpeg_quality, query.max_examined) == (80, 1000)
    assert (query.max_message_bytes, query.max_message_samples) == (1 << 20, 8)
    assert query.weight == 3
    assert explicit.latents.space == pb.LATENT_SPACE_Z
    assert explicit.latents.rows.data == rows.astype("<f4").tobytes()


def test_generate_returns_one_batch(target: str) -> None:
    with Client(target) as client:
        batch = client.generate(seed=5, start_index=3, count=4, max_uncertainty=0.5)
        none = client.generate(indices=[9], max_uncertainty=0.0)
    assert len(batch) == 4
    assert batch.next_index == 3 + 4 + batch.discarded
    assert (len(none), none.images, none.discarded, none.next_index) == (0, None, 1, 10)


def test_a_batch_prints_as_a_line(target: str) -> None:
    with Client(target) as client:
        batch = client.generate(count=2)
    shown = repr(batch)
    assert shown.startswith("Batch(images=uint8[2, 6, 8, 3], masks=uint8[2, 6, 8], ")
    assert "next_index=2" in shown and "views" not in shown
    assert "\n" not in shown and len(shown) < 400


def test_models_are_described(target: str) -> None:
    with Client(target) as client:
        (model,) = client.models()
        assert client.model() == model
        assert client.model("scripted", keep_fraction=0.25).max_uncertainty == 0.25
        with pytest.raises(NotFound, match="'other'"):
            client.model("other")
    assert model.outputs == tuple(codec.OUTPUTS)
    assert (model.image_size, model.label_size) == ((6, 8), (6, 8))
    assert [label.name for label in model.classes] == ["background", "skin", "eye"]
    assert model.palette()[:3].tolist() == [[32, 32, 48], [224, 176, 64], [48, 128, 224]]
    assert (model.keypoints, model.skeleton) == (("left", "nose", "right"), ((0, 1),))
    assert model.max_uncertainty is None


def test_refusals_are_typed_on_every_call(target: str, service: ScriptedService) -> None:
    service.refusal = Ended(grpc.StatusCode.INVALID_ARGUMENT, "count 9 is over the limit 8")
    with Client(target) as client:
        generate, stream = partial(client.generate, count=9), client.stream
        for call in (client.models, client.model, generate, lambda: next(stream())):
            with pytest.raises(Invalid, match="over the limit 8") as caught:
                call()
            assert isinstance(caught.value, Refused)
            assert isinstance(caught.value.__cause__, grpc.RpcError)
        service.refusal = Ended(grpc.StatusCode.UNAUTHENTICATED, "give a token")
        with pytest.raises(Denied):
            client.models()


def test_no_server_is_unreachable_and_names_the_target() -> None:
    with Client(CLOSED_PORT) as client:
        with pytest.raises(Unreachable, match=CLOSED_PORT):
            client.models()
        with pytest.raises(Unreachable, match=CLOSED_PORT) as caught:
            next(client.stream(start_index=5))
        assert caught.value.next_index == 5


def test_a_single_call_waits_for_a_server_that_is_loading(
    target: str, service: ScriptedService
) -> None:
    service.refusal = Ended(grpc.StatusCode.UNAVAILABLE, "the server is loading; try again soon")
    loaded = threading.Timer(0.3, setattr, (service, "refusal", None))
    loaded.start()
    with Client(target, patience=Patience(connect_s=0.0, first_wait_s=0.01)) as client:
        assert client.model().name == "scripted"
    loaded.join()


def test_a_deadline_ends_a_stream(target: str) -> None:
    with Client(target, prefetch_bytes=0) as client:
        batches = client.stream(4, deadline_s=0.3, outputs=["mask"])
        with pytest.raises(TimedOut) as caught:
            for _ in batches:
                time.sleep(0.01)
        assert caught.value.next_index is not None
        with pytest.raises(TimedOut, match=f"{target} did not finish in time; raise timeout_s"):
            list(client.stream(4, deadline_s=0.0))

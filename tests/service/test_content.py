"""A sample is a function of bundle, seed, index and options, whatever happens around it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engines.fake import FakeMapping, FakeOptions, fake_bundle
from engines.sampling import default_options, ws_from_indices
from labelmint.codec import array_from_tensor, name_from_output
from labelmint.v1 import label_service_pb2 as pb
from tests.service.harness import FakeModel, RunningServer, served

END = 60
EVERYTHING = [*range(pb.OUTPUT_IMAGE, pb.OUTPUT_W + 1)]
Samples = dict[int, dict[str, bytes]]


def samples_of(messages: Any) -> Samples:
    """Every sample's arrays as bytes, by index."""
    samples: Samples = {}
    for message in messages:
        arrays = {name_from_output(t.output): array_from_tensor(t) for t in message.batch.tensors}
        for row, index in enumerate(message.batch.indices):
            samples[index] = {name: array[row].tobytes() for name, array in arrays.items()}
    return samples


def query(**changes: Any) -> dict[str, Any]:
    sampling = pb.SamplingOptions(seed=3, truncation_psi=0.7, truncation_cutoff=4)
    return {"sampling": sampling, "end_index": END, "outputs": EVERYTHING, **changes}


@pytest.fixture(scope="module")
def alone(server: RunningServer) -> Samples:
    """The samples as one stream by itself gets them."""
    samples = samples_of(server.stream(**query()))
    assert len(samples) == END and len(samples[0]) == len(EVERYTHING)
    return samples


@pytest.mark.parametrize("batch_sizes", [(1,), (3,), (2, 4, 32)])
@pytest.mark.parametrize("engines", [1, 2])
def test_not_of_batch_size_engines_or_restart(
    alone: Samples, batch_sizes: tuple[int, ...], engines: int
) -> None:
    uneven = FakeOptions(seconds_per_run=0.002)
    with served([FakeModel(batch_sizes=batch_sizes, engines=engines, options=uneven)]) as other:
        assert samples_of(other.stream(**query())) == alone


@pytest.mark.parametrize("shards", [2, 7])
def test_not_of_the_shard_layout(server: RunningServer, alone: Samples, shards: int) -> None:
    merged: Samples = {}
    for shard in range(shards):
        merged |= samples_of(server.stream(**query(num_shards=shards, shard_index=shard)))
    assert merged == alone


def test_not_of_who_else_is_connected(server: RunningServer, alone: Samples) -> None:
    other = pb.SamplingOptions(seed=99, views_per_object=2)
    strict = pb.Filter(mode=pb.FILTER_MODE_MAX_UNCERTAINTY, max_uncertainty=0.1)
    queries = [
        query(), query(sampling=other), query(filter=strict), query(outputs=[pb.OUTPUT_MASK]),
    ] * 3  # fmt: skip
    with ThreadPoolExecutor(len(queries)) as pool:
        results = list(pool.map(lambda q: samples_of(server.stream(**q)), queries))
    assert results[0] == results[4] == results[8] == alone
    filtered = {i: s for i, s in alone.items() if np.frombuffer(s["uncertainty"], "<f4")[0] <= 0.1}
    assert results[2] == results[6] == filtered
    assert results[3] == {i: {"mask": s["mask"]} for i, s in alone.items()}


def test_not_of_how_it_is_asked_for(server: RunningServer, alone: Samples) -> None:
    some = [0, 7, 31, 59]
    listed = samples_of(server.stream(**query(indices=some, end_index=0)))
    answer = samples_of([server.generate(**query(start_index=31, end_index=0, count=1))])
    small = samples_of(server.stream(**query(max_message_samples=1)))
    assert listed == {i: alone[i] for i in some}
    assert answer == {31: alone[31]}
    assert small == alone


def test_ws_on_request_are_the_samplers_and_reproduce_the_sample(
    server: RunningServer, alone: Samples
) -> None:
    """Explicit w+ rows come back as the samples they came from."""
    generator = fake_bundle(resolution=16).manifest.generator
    options = replace(
        default_options(generator, 3), truncation_psi=float(np.float32(0.7)), truncation_cutoff=4
    )
    ws = ws_from_indices(FakeMapping(generator), generator, options, range(END))
    assert [alone[i]["w"] for i in range(END)] == [row.tobytes() for row in ws]
    rows = pb.Tensor(
        dtype=pb.DATA_TYPE_FLOAT32, shape=ws.shape, codec=pb.CODEC_RAW, data=ws.tobytes()
    )
    latents = pb.ExplicitLatents(space=pb.LATENT_SPACE_W_PLUS, rows=rows)
    brought = samples_of(server.stream(latents=latents, outputs=EVERYTHING))
    resumed = samples_of(server.stream(latents=latents, outputs=EVERYTHING, start_index=41))
    assert brought == alone
    assert resumed == {i: alone[i] for i in range(41, END)}


def test_mt19937_is_the_research_codes_order(server: RunningServer) -> None:
    """Also from the middle, and with shards."""
    sampling = pb.SamplingOptions(seed=5, latent_source=pb.LATENT_SOURCE_MT19937)
    wanted: dict[str, Any] = {"sampling": sampling, "end_index": 40, "outputs": [pb.OUTPUT_W]}
    z = np.random.RandomState(5).randn(40, 16).astype(np.float32)
    merged = samples_of(server.stream(**wanted, start_index=20))
    for shard in range(3):
        merged |= samples_of(
            server.stream(**wanted | {"end_index": 20, "num_shards": 3, "shard_index": shard})
        )
    got = {i: np.frombuffer(s["w"], np.float32).reshape(6, 16)[0] for i, s in merged.items()}
    assert sorted(got) == list(range(40))
    assert all(np.array_equal(got[i], z[i]) for i in got)


def test_jpeg_only_when_it_is_asked_for(server: RunningServer) -> None:
    def codecs(**changes: Any) -> dict[int, int]:
        answer = server.generate(count=2, **changes)
        return {tensor.output: tensor.codec for tensor in answer.batch.tensors}

    assert codecs()[pb.OUTPUT_IMAGE] == pb.CODEC_RAW
    asked = codecs(accept_codecs=[pb.CODEC_JPEG], jpeg_quality=50)
    assert asked[pb.OUTPUT_IMAGE] == pb.CODEC_JPEG
    assert asked[pb.OUTPUT_MASK] == pb.CODEC_RAW  # ZSTD was not accepted
    assert set(codecs(accept_codecs=[pb.CODEC_RAW]).values()) == {pb.CODEC_RAW}

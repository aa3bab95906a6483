"""The guarantees that a fake engine cannot show, with ONNX Runtime on real bundles."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from bundle.manifest import LABELLER, MAPPING
from engines.fake import fake_bundle
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.config import Config, NamedBundle
from service.loading import open_models
from tests.hangs import HANG_S
from tests.service.harness import RunningServer, channel_to, served_by
from tests.service.test_content import Samples, samples_of
from tests.service.test_process import bundle_around, refused_start, running

END = 24
OUTPUTS = [pb.OUTPUT_IMAGE, pb.OUTPUT_MASK, pb.OUTPUT_KEYPOINTS, pb.OUTPUT_UNCERTAINTY, pb.OUTPUT_W]


@contextmanager
def serving(
    path: Path, batch_sizes: tuple[int, ...] = (), name: str = "real"
) -> Iterator[RunningServer]:
    config = Config(
        bundles=(NamedBundle(name, path),), listen="127.0.0.1:0", batch_sizes=batch_sizes,
        threads=1, shared_memory=True,
    )  # fmt: skip
    with served_by(config, lambda metrics: open_models(config, metrics)) as server:
        yield server


def query(**changes: Any) -> dict[str, Any]:
    sampling = pb.SamplingOptions(seed=8, truncation_psi=0.5)
    return {"sampling": sampling, "end_index": END, "outputs": OUTPUTS, **changes}


SLOW_DEMO = pytest.param("demo_bundle", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["tiny_bundle", SLOW_DEMO])
def bundle(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture(scope="module")
def real(bundle: Path) -> Iterator[RunningServer]:
    with serving(bundle) as server:
        yield server


@pytest.fixture(scope="module")
def alone(real: RunningServer) -> Samples:
    samples = samples_of(real.stream(**query()))
    assert len(samples) == END
    assert len({sample["image"] for sample in samples.values()}) == END
    return samples


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Iterator[RunningServer]:
    with serving(tiny_bundle) as server:
        yield server


def test_bits_do_not_depend_on_position_in_a_batch_or_company(
    real: RunningServer, alone: Samples
) -> None:
    for start in (1, 6):
        shifted = samples_of(real.stream(**query(start_index=start)))
        assert shifted == {i: alone[i] for i in range(start, END)}
    others = [query(sampling=pb.SamplingOptions(seed=s)) for s in range(2)]
    with ThreadPoolExecutor(4) as pool:
        streams = [query(), *others, query()]
        results = list(pool.map(lambda q: samples_of(real.stream(**q)), streams))
    assert results[0] == results[-1] == alone
    assert all(result != alone for result in results[1:-1])


def test_bits_do_not_depend_on_shards_or_restart(bundle: Path, alone: Samples) -> None:
    merged: Samples = {}
    with serving(bundle) as other:
        for shard in range(3):
            merged |= samples_of(other.stream(**query(num_shards=3, shard_index=shard)))
    assert merged == alone


def test_labels_do_not_depend_on_the_batch_size(bundle: Path, alone: Samples) -> None:
    """Batches of other sizes run other kernels: near-ties may differ there, and only there."""
    with serving(bundle, batch_sizes=(3,)) as other:
        samples = samples_of(other.stream(**query()))
    for name, most in (("image", 1), ("mask", 0)):
        wrong = total = 0
        for i, sample in samples.items():
            pairs = zip(sample[name], alone[i][name], strict=True)
            wrong += sum(abs(a - b) > most for a, b in pairs)
            total += len(sample[name])
        assert wrong <= total // 1000


def test_the_calibrated_filter_keeps_about_its_share(tiny: RunningServer) -> None:
    keep = pb.Filter(mode=pb.FILTER_MODE_KEEP_FRACTION, keep_fraction=0.75)
    call = tiny.stream(end_index=256, filter=keep, outputs=[pb.OUTPUT_UNCERTAINTY])
    kept = sum(len(message.batch.indices) for message in call)
    assert 0.7 < kept / 256 < 0.8  # the very samples it was calibrated with


def test_a_real_process_serves_it_soon(tiny_bundle: Path) -> None:
    with running(tiny_bundle) as process, channel_to(process.port) as channel:
        stub = LabelServiceStub(channel)
        request = pb.GenerateSamplesRequest(query=pb.SampleQuery(count=2))
        assert len(stub.GenerateSamples(request, timeout=HANG_S).batch.indices) == 2


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", [MAPPING, LABELLER["float32"]])
def test_a_flipped_bit_is_found_and_named(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bundle, broken)
    flip(broken / name)
    line = refused_start(broken)
    assert line.startswith("bundle broken: ") and "\n" not in line
    assert name in line and "SHA-256" in line


def test_graphs_that_contradict_the_manifest_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    """A consistent manifest, whose hashes are right, around the graphs of another model."""
    other = bundle_around(tmp_path / "other", fake_bundle(resolution=16).manifest, tiny_bundle)
    line = refused_start(other)
    assert line.startswith("bundle other: ") and "\n" not in line
    assert "labeller.onnx" in line


def test_huge_latents_fail_alone_if_at_all(tiny: RunningServer) -> None:
    """Finite, but beyond what the network's floats can hold."""
    rows = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[1, 8], data=b"\xff\xff\x7f\x7f" * 8)
    latents = pb.ExplicitLatents(space=pb.LATENT_SPACE_Z, rows=rows)
    before = samples_of(tiny.stream(**query()))
    with ThreadPoolExecutor(2) as pool:
        good = pool.map(lambda q: samples_of(tiny.stream(**q)), [query()])
        for _ in range(5):
            call = tiny.stream(latents=latents)
            try:
                list(call)
            except grpc.RpcError:
                assert call.code() in (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INTERNAL)
        assert list(good) == [before]

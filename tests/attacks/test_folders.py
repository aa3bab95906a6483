"""Folders under --watch that grow to very many entries, and whose files change while they load and
serve: no other stream loses anything, and what is served is a whole bundle."""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bundle.manifest import MANIFEST
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from tests.attacks.test_request_memory import memory_mib
from tests.hangs import HANG_S, eventually
from tests.service.harness import channel_to
from tests.service.test_process import bundle_at, running

# The interpreter's memory for what it looks at, which does not grow with the number of entries.
OTHER_MIB = 96
MAX_THREADS, MAX_DESCRIPTORS = 64, 64
SIDES = (16, 32)  # pixels of the two bundles that take turns under one name
# Statuses of a call whose model is not served just now, or is replaced.
ENDS = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)


def swapped(folder: Path, good: list[Path], random: random.Random) -> None:
    """Another bundle, by one rename."""
    new = folder.with_name(".new")
    new.symlink_to(random.choice(good))
    os.replace(new, folder)


def changes(random: random.Random, other: Path) -> list[Callable[[Path], object]]:
    """Ways to change a file of a bundle; `other` is a file that is none of its own."""

    def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
        def replace(file: Path) -> None:
            file.unlink()
            make(file)

        return replace

    return [
        lambda file: file.write_bytes(random.randbytes(1 + random.randrange(9))),
        lambda file: os.truncate(file, random.choice((0, 1, 1 << 40))),
        replaced(lambda file: None),
        replaced(os.mkfifo),
        replaced(lambda file: file.symlink_to(file)),
        replaced(lambda file: file.symlink_to("/dev/zero")),
        replaced(lambda file: file.hardlink_to(other)),
        replaced(lambda file: file.mkdir()),
    ]


@pytest.mark.parametrize(
    ("entries", "rounds"),
    [
        pytest.param(2_000, 20, marks=pytest.mark.long),
        pytest.param(100_000, 300, marks=pytest.mark.slow),
    ],
)
def test_folders_that_grow_and_change_leave_other_streams_alone(
    tmp_path: Path, entries: int, rounds: int
) -> None:
    choice = random.Random(entries)
    watched, bundles = tmp_path / "watched", tmp_path / "bundles"
    watched.mkdir()
    bundles.mkdir()
    good = [bundle_at(bundles / str(side), resolution=side) for side in SIDES]
    honest, taken = bundle_at(tmp_path / "honest"), watched / "taken"
    flags = (
        "--engine", "fake", "--watch", str(watched), "--watch-interval", "0.1",
        "--model-drain", "0.2", "--log-level", "error",
    )  # fmt: skip
    with running(honest, *flags) as process, channel_to(process.port) as channel:
        before = memory_mib(process.popen.pid)
        stub, health = LabelServiceStub(channel), stub_of_health(channel)
        messages = stub.StreamSamples(request("m"), timeout=None)
        indices: list[int] = []

        def look() -> None:
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=HANG_S).status
            indices.extend(next(messages).batch.indices)

        crowd = watched / "crowd"
        shutil.copytree(honest, crowd)
        for number in range(entries):  # as many in a folder, as folders, and beside them
            (crowd / f"{number}.png").touch()
            (watched / f"{number}.onnx").touch()
            if number % 10 == 0:
                (watched / f"empty{number}").mkdir()
            if number % 1000 == 0:
                look()
        for _ in range(rounds):
            swapped(taken, good, choice)
            time.sleep(0.05 * choice.random())
            copy = watched / "copy"
            if copy.exists():
                shutil.rmtree(copy)
            shutil.copytree(choice.choice(good), copy)
            time.sleep(0.2 * choice.random())
            for file in choice.sample(sorted(copy.iterdir()), 2):
                if file.exists():
                    choice.choice(changes(choice, good[0] / MANIFEST))(file)
            look()
            for name in ("taken", "copy"):
                samples(stub, name)
        assert indices == list(range(len(indices))) != []
        messages.cancel()
        status = Path(f"/proc/{process.popen.pid}")
        assert memory_mib(process.popen.pid) - before < OTHER_MIB
        assert len(list((status / "task").iterdir())) < MAX_THREADS
        assert len(list((status / "fd").iterdir())) < MAX_DESCRIPTORS
        shutil.rmtree(copy)
        shutil.copytree(good[0], watched / "after")
        assert eventually(lambda: samples(stub, "after") and samples(stub, "taken"))


def stub_of_health(channel: grpc.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


def samples(stub: LabelServiceStub, name: str) -> bool:
    """Reads a few samples, all of one bundle; whether the model is served."""
    sides = set()
    try:
        for message in stub.StreamSamples(request(name, count=20), timeout=HANG_S):
            for tensor in message.batch.tensors:
                if tensor.output == pb.OUTPUT_IMAGE:
                    sides.add(tuple(tensor.shape[1:]))
    except grpc.RpcError as error:
        assert error.code() in ENDS, error
        return False
    assert len(sides) == 1, sides
    return True


def request(model: str, count: int = 0) -> pb.StreamSamplesRequest:
    return pb.StreamSamplesRequest(query=pb.SampleQuery(model=model, count=count))

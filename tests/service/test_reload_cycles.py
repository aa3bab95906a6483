"""Reloads, broken ones among them, leave neither memory nor files nor threads behind."""

import gc
import os
import shutil
import threading
import time
from pathlib import Path

import grpc
import pytest

from engines.open import Runtime
from service.config import Config, NamedBundle
from service.loading import open_models
from tests.hangs import HANG_S
from tests.service.harness import RunningServer, refusal, served_by
from tests.service.test_process import bundle_at
from tests.service.test_repository_control import control
from tests.service.test_watch import link

PAGE = os.sysconf("SC_PAGE_SIZE")
ALLOWED_BYTES = 64 << 20  # the allocator's own wandering


@pytest.mark.parametrize(
    ("runtime", "cycles"),
    [
        ("fake", 9),
        pytest.param("onnxruntime", 6, marks=pytest.mark.long),
        pytest.param("fake", 100, marks=pytest.mark.slow),
        pytest.param("onnxruntime", 100, marks=pytest.mark.slow),
    ],
)
def test_reload_cycles_leak_nothing(
    runtime: Runtime, cycles: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    good = tmp_path / "good"
    if runtime == "fake":
        bundle_at(good)
    else:
        shutil.copytree(request.getfixturevalue("tiny_bundle"), good)
    broken = tmp_path / "broken"
    shutil.copytree(good, broken)
    graph = broken / "labeller.onnx"
    graph.write_bytes(b"x" * graph.stat().st_size if runtime != "fake" else b"x")
    current = tmp_path / "current"
    link(current, good)
    admins = tmp_path / "admins"
    admins.write_text(f"ops {'a' * 20}\n")
    config = Config(
        (NamedBundle("fake", current),), "127.0.0.1:0", runtime=runtime, admin_token_file=admins,
        threads=1, model_drain_s=5.0,
    )  # fmt: skip
    with served_by(config, lambda metrics: open_models(config, metrics)) as server:
        for number in range(max(3, cycles // 2)):  # until memory has its high-water mark
            reload(server, current, (good, broken)[number % 2])
        before = held(server)
        for number in range(cycles):
            stream = server.stream(end_index=40)
            reload(server, current, broken if number % 3 == 2 else good)
            assert sum(len(message.batch.indices) for message in stream) == 40
        after = held(server)
    print(f"{runtime}, {cycles} reloads: files, threads, bytes from {before} to {after}")
    assert after[0] == before[0]
    assert after[1] <= before[1] + 2  # those of the one model may not have run before
    assert after[2] - before[2] < ALLOWED_BYTES


def reload(server: RunningServer, current: Path, target: Path) -> None:
    link(current, target)
    if target.name == "broken":
        refused = refusal(lambda: control(server, "Load"))
        assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    else:
        control(server, "Load")


def held(server: RunningServer) -> tuple[int, int, int]:
    """Open files, models' threads and resident bytes of this process, once old models are gone.

    The other threads are those of pools, which start them as they come to need them.
    """
    deadline = time.monotonic() + HANG_S
    while len(server.server.repository._running) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    threads = [t.name for t in threading.enumerate() if t.name.startswith(("engine", "mapping"))]
    return len(os.listdir("/proc/self/fd")), len(threads), resident

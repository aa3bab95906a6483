"""Rows of Ray Data are those of a plain stream, also when servers, workers and nodes are lost."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmint import Client
from tests.client.ray_runs import OPTIONS
from tests.hangs import HANG_S
from tests.service.test_process import Process, bundle_at, running

# Nothing is sent home, nothing is written to the home, and a busy machine may start slowly.
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_raylet_start_wait_time_s": "600",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "OMP_NUM_THREADS": "1",
}


@contextmanager
def own_folder() -> Iterator[dict[str, str]]:
    """Variables of a Ray with a folder of its own. The machine's may hold another Ray's address,
    and a cluster does not make it where there is none."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray").mkdir()
        yield {"RAY_TMPDIR": folder}


def ran(*words: str) -> Any:
    """What a run of `tests.client.ray_runs` says at its end."""
    command = [sys.executable, "-m", "tests.client.ray_runs", *words]
    with own_folder() as folder:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **RAY, **folder},
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=HANG_S)
        finally:
            process.terminate()
            process.wait()
    assert process.returncode == 0, (out, err)
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of images so large that a block of a few samples is an object of a node."""
    return bundle_at(tmp_path_factory.mktemp("ray") / "fake", resolution=64)


@pytest.fixture(scope="module")
def served(fake: Path) -> Iterator[Process]:
    with running(fake, "--engine", "fake") as process:
        yield process


def target_of(process: Process) -> str:
    return f"{process.host}:{process.port}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # open files of `datasets`
def test_rows_are_those_of_the_stream(tiny_bundle: Path, tmp_path: Path) -> None:
    with running(tiny_bundle) as process:
        found = ran("rows", target_of(process), str(tiny_bundle), str(tmp_path / "rows"))
        with Client(target_of(process)) as client:
            batches = [batch.columns() for batch in client.stream(16, **OPTIONS)]
    assert 20 < found["rows"] < 300 and 0 < found["views"] < 99
    opened = hub_columns(tmp_path / "rows/hub", tmp_path / "cache")
    assert opened.keys() == batches[0].keys()
    for name, array in opened.items():
        wanted = np.concatenate([batch[name] for batch in batches])
        assert array.shape == wanted.shape and np.array_equal(array, wanted), name


def hub_columns(folder: Path, cache: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What `datasets` opens of the folder that Ray wrote, as docs/scale.md says."""
    import datasets  # takes a second, and every worker imports this file

    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))
    for name in ("image", "mask"):
        rows = rows.cast_column(name, datasets.Image())
    order = np.argsort(rows["index"][:])  # Ray writes parts as they come
    columns = {
        name: np.stack([np.asarray(value) for value in rows[name][:]])[order]
        for name in rows.column_names
    }
    del rows
    gc.collect()
    return columns


@pytest.mark.slow
def test_lost_servers_workers_and_nodes_lose_no_row(fake: Path, served: Process) -> None:
    with running(fake, "--engine", "fake") as doomed:
        targets = f"{target_of(doomed)},{target_of(served)}"
        found = ran("losses", targets, str(fake), str(doomed.popen.pid))
    assert 200 < found["rows"] < 300
    assert found["killed"] == ["actor", "server", "worker"]
    assert found["blocks"] > 0  # were lost with the node


@pytest.mark.slow
def test_ray_train_trains_on_each_sample_of_a_stream(served: Process) -> None:
    words = ("--target", target_of(served), "--samples", "128", "--passes", "1")
    with own_folder() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "examples.ray_train", *words],
            capture_output=True, text=True, env={**os.environ, **RAY, **folder}, timeout=HANG_S,
        )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "first worker: 64 samples in the last pass, mean loss" in done.stdout

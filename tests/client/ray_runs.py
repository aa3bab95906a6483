"""Ray on this machine: reads a stream, labels a data set, and loses processes meanwhile.

    python -m tests.client.ray_runs rows TARGET BUNDLE FOLDER
    python -m tests.client.ray_runs losses TARGETS BUNDLE SERVER_PID

A process of its own, because Ray forks, which a process with gRPC's threads must not. Each run
asserts that its rows are those of a plain stream, and prints one JSON line.
"""

import io
import json
import logging
import os
import shutil
import signal
import sys
import tarfile
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import ray
from PIL import Image
from ray.cluster_utils import Cluster
from ray.experimental import get_object_locations

from labelmint import Client
from labelmint.ray import Labeller, LabelSource
from labelmint.ray.rows import hub_table, webdataset_row
from tests.hangs import eventually

ADDRESS = "127.0.0.2"  # for 127.0.0.1 Ray takes the address of the network
STORE_BYTES = 200 << 20  # of each node's object store
BLOCK_BYTES = 1 << 20  # of a block: many small ones, as with samples of full size
OPTIONS: dict[str, Any] = {"seed": 7, "keep_fraction": 0.8, "end_index": 300}
VIEWS: dict[str, Any] = {
    "views_per_object": 3, "start_index": 2,
    "end_index": 101, "outputs": ["mask", "uncertainty", "w"],
}  # fmt: skip
Columns = dict[str, Any]


@contextmanager
def cluster(nodes: int, cpus: int) -> Iterator[Cluster]:
    """A head without CPUs and some nodes, all on the loopback address, gone after the block."""
    folder = tempfile.mkdtemp(prefix="ray-")  # a short path, because sockets are in it
    node = {"object_store_memory": STORE_BYTES, "node_ip_address": ADDRESS}
    made = Cluster()
    try:
        made.add_node(wait=False, num_cpus=0, temp_dir=folder, include_dashboard=False, **node)
        for _ in range(nodes):
            made.add_node(wait=False, num_cpus=cpus, temp_dir=folder, **node)
        ray.init(
            made.address, _node_ip_address=ADDRESS, logging_level=logging.ERROR, log_to_driver=False
        )
        assert eventually(lambda: len(alive()) == nodes + 1)
        context = ray.data.DataContext.get_current()
        context.target_max_block_size = BLOCK_BYTES
        context.enable_progress_bars = False
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def alive() -> list[str]:
    """Ids of the nodes that Ray holds for alive."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def joined(batches: Iterable[Columns]) -> Columns:
    """All rows by column, in ascending order of the index."""
    parts = list(batches)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(whole["index"], kind="stable")
    return {name: array[order] for name, array in whole.items()}


def rows_of(dataset: Any) -> Columns:
    return joined(dataset.iter_batches(batch_size=16))


def streamed(target: str, options: dict[str, Any]) -> Columns:
    with Client(target) as client:
        return joined(batch.columns() for batch in client.stream(16, **options))


def same(found: Columns, wanted: Columns) -> int:
    """Number of rows; raises AssertionError unless both have the same columns, bit for bit."""
    assert list(found) == list(wanted), (list(found), list(wanted))
    assert found["index"].tolist() == wanted["index"].tolist()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, (name, found[name].dtype)
        assert np.array_equal(found[name], array), name
    return len(found["index"])


def rows(target: str, bundle: str, folder: str) -> dict[str, Any]:
    """A stream is read and written, with views too, and its samples are made without a server."""
    with cluster(nodes=1, cpus=2):  # one for an actor, one for the tasks that make indices
        source = LabelSource(target, shards=9, **OPTIONS)
        dataset = ray.data.read_datasource(source)
        assert dataset.schema().names == list(source.model.schema(**source.options))
        dataset = dataset.materialize()
        wanted = streamed(target, OPTIONS)
        rows = same(rows_of(dataset), wanted)
        scores = streamed(target, VIEWS)["uncertainty"]
        sets = {**VIEWS, "filter_sets": True, "max_uncertainty": float(np.quantile(scores, 0.8))}
        views = ray.data.read_datasource(LabelSource(target, shards=4, **sets))
        of_views = same(rows_of(views), streamed(target, sets))
        nothing: dict[str, Any] = {"max_uncertainty": 0.0, "end_index": 9}
        empty = ray.data.read_datasource(LabelSource(target, shards=2, **nothing))
        assert empty.count() == 0
        assert same(written(dataset, folder), wanted) == rows
        pinned = {name: value for name, value in source.options.items() if name != "end_index"}
        labelled = ray.data.range(OPTIONS["end_index"], override_num_blocks=7).map_batches(
            Labeller,
            fn_constructor_kwargs={"bundle": bundle, **pinned},
            batch_size=10,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        assert same(rows_of(labelled), wanted) == rows
    return {"rows": rows, "views": of_views}


def written(dataset: Any, folder: str) -> Columns:
    """Rows that Ray's writers wrote, in its own Parquet; the other forms are compared with them."""
    dataset.write_parquet(f"{folder}/rows")
    dataset.map(webdataset_row).write_webdataset(f"{folder}/tars")
    tables = dataset.map_batches(hub_table, batch_format="pyarrow")
    tables.write_parquet(f"{folder}/hub")
    rows = rows_of(ray.data.read_parquet(f"{folder}/rows"))
    files = {}
    for path in Path(folder, "tars").iterdir():
        with tarfile.open(path) as tar:
            files.update({name: contents(tar, name) for name in tar.getnames()})
    table = parquet.read_table(f"{folder}/hub").sort_by("index")
    for n, index in enumerate(rows["index"].tolist()):
        key = f"{index:012d}"
        for name, suffix in (("image", "png"), ("mask", "mask.png")):
            assert np.array_equal(opened(files[f"{key}.{suffix}"]), rows[name][n])
            assert np.array_equal(opened(table[name][n]["bytes"].as_py()), rows[name][n])
        assert np.array_equal(
            np.load(io.BytesIO(files[f"{key}.keypoints.npy"])), rows["keypoints"][n]
        )
        assert np.array_equal(np.float32(table["keypoints"][n].as_py()), rows["keypoints"][n])
        assert json.loads(files[f"{key}.json"])["index"] == index
    assert table["index"].to_pylist() == rows["index"].tolist()
    return rows


def contents(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def opened(picture: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(picture)))


def losses(targets: str, bundle: str, server: str) -> dict[str, Any]:
    """A server, workers, an actor and a node are killed, each after some of the work is done."""
    with cluster(nodes=3, cpus=2) as made:
        killed = {"server": int(server), "worker": 0, "actor": 0}

        def kill() -> None:
            assert eventually(lambda: workers("ReadLabels"))
            os.kill(killed["server"], signal.SIGKILL)
            killed["worker"] = workers("ReadLabels")[0]
            os.kill(killed["worker"], signal.SIGKILL)

        source = LabelSource(targets, shards=30, **OPTIONS)
        killer = threading.Thread(target=kill)
        killer.start()
        dataset = ray.data.read_datasource(source).materialize()
        killer.join()
        blocks = lose_a_node(made, dataset)
        assert eventually(lambda: len(alive()) == 3)
        rows = same(rows_of(dataset), streamed(targets.split(",")[1], OPTIONS))
        pinned = {n: v for n, v in source.options.items() if n != "end_index"}
        labelled = ray.data.range(300, override_num_blocks=20).map_batches(
            Labeller,
            fn_constructor_kwargs={"bundle": bundle, "runtime": "fake", **pinned},
            batch_size=10,
            compute=ray.data.ActorPoolStrategy(size=2),
        )
        parts = []
        for part in labelled.iter_batches(batch_size=16):
            parts.append(part)
            if not killed["actor"]:
                killed["actor"] = workers("Labeller")[0]
                os.kill(killed["actor"], signal.SIGKILL)
        assert same(joined(parts), rows_of(dataset)) == rows
    killed_names = sorted(name for name, pid in killed.items() if pid)
    return {"rows": rows, "killed": killed_names, "blocks": blocks}


def lose_a_node(made: Cluster, dataset: Any) -> int:
    """Removes the node that holds most blocks of a materialized data set, and no driver.

    Returns the number of blocks that were there and nowhere else. Blocks under 100 kB are none of
    a node's: Ray keeps them in the driver.
    """
    places = get_object_locations(dataset.get_internal_block_refs())
    counts = Counter(place["node_ids"][0] for place in places.values() if place["node_ids"])
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in made.list_all_nodes() if node.node_id != here]
    doomed = max(nodes, key=lambda node: counts[node.node_id])
    made.remove_node(doomed, allow_graceful=False)
    return sum(place["node_ids"] == [doomed.node_id] for place in places.values())


def workers(work: str) -> list[int]:
    """Processes of Ray on this machine that are named after this work."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:  # ended meanwhile
            continue
        if words.startswith(b"ray::") and work.encode() in words:
            found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leaves no cluster behind
    print(json.dumps({"rows": rows, "losses": losses}[sys.argv[1]](*sys.argv[2:])))

"""A server whose engines take no time, or a fixed time, to measure everything else."""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Manifest
from engines.fake import FakeMapping, fake_bundle
from engines.protocol import EngineResult
from engines.signature import labeller_outputs
from service.config import Config
from service.metrics import Metrics
from service.models import ServedModel
from service.process import keep_freed_memory
from service.server import Server

PATCH = 16  # pixels of equal value, along one side


@dataclass(frozen=True)
class Setting:
    """Configuration of the server."""

    resolution: int = 256
    batch: int = 16
    engines: int = 1
    seconds_per_run: float = 0.0
    keep_memory: bool = True  # as `python -m service run` does


class ReadyEngine:
    """An Engine that returns the same precomputed arrays after a sleep."""

    name = "ready"

    def __init__(self, manifest: Manifest, setting: Setting) -> None:
        self._seconds = setting.seconds_per_run
        self.batch_sizes = (setting.batch,)
        source = np.random.default_rng(0)
        self._arrays: dict[str, NDArray[np.generic]] = {}
        for name, spec in labeller_outputs(manifest).items():
            values = patches(source, (setting.batch, *spec.extents))
            if name == "image":
                values = np.clip(255 * values + source.normal(0, 2, values.shape), 0, 255)
            self._arrays[name] = (values * 3 if name == "mask" else values).astype(spec.dtype)
        self.outputs = tuple(self._arrays)

    def run(
        self,
        ws: NDArray[np.float32],
        max_uncertainty: NDArray[np.float32],
        outputs: tuple[str, ...],
        boxes: NDArray[np.float32] | None = None,
    ) -> EngineResult:
        """Like Engine.run, but keeps every sample."""
        if self._seconds:
            time.sleep(self._seconds)
        rows = len(ws)
        return EngineResult(
            np.arange(rows, dtype=np.int32), {name: self._arrays[name][:rows] for name in outputs}
        )

    def stop(self) -> None:
        """Does nothing: a run ends at once."""

    def close(self) -> None:
        """Nothing to free."""


def patches(source: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Values in [0, 1) that are equal over 16 x 16 px, so that codecs can compress them."""
    coarse = [-(-n // PATCH) if axis in (1, 2) else n for axis, n in enumerate(shape)]
    values = source.random(coarse, np.float32)
    for axis in (1, 2):
        if axis < len(shape):
            values = values.repeat(PATCH, axis)
    return values[tuple(slice(n) for n in shape)]


@contextmanager
def serving(setting: Setting) -> Iterator[str]:
    """Runs a server in a separate process; yields HOST:PORT."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(setting, theirs), daemon=True)
    process.start()
    try:
        yield f"127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(setting: Setting, port: Connection) -> None:
    if setting.keep_memory:
        keep_freed_memory()
    os.environ["GRPC_VERBOSITY"] = "NONE"
    asyncio.run(_run(setting, port))


async def _run(setting: Setting, port: Connection) -> None:
    bundle, metrics = fake_bundle(setting.resolution), Metrics()
    engines = tuple(ReadyEngine(bundle.manifest, setting) for _ in range(setting.engines))
    model = ServedModel(
        "ready",
        bundle,
        engines,
        FakeMapping(bundle.manifest.generator),
        metrics.of_model("ready"),
    )
    config = Config(bundles=(), listen="127.0.0.1:0", shared_memory=True)
    async with Server(config, metrics).running() as server:
        await server.serve([model])
        port.send(server.port)
        await asyncio.Event().wait()

"""Engines on a fake device, by whichever runtime launches."""

from functools import partial
from pathlib import Path
from typing import Any

from bundle.open import Bundle
from engines import EngineOptions, open_engines
from engines.device_engine import DeviceEngine
from engines.onnx_graph import graph_from_bundle
from engines.open_gpu import GpuDrivers, GpuOptions
from engines.ort_launch import OrtLauncher
from tests.engines.fake_device import FakeDevice
from tests.engines.fake_tensorrt import VERSIONS, FakeTensorRT

KINDS = [*VERSIONS, "onnxruntime"]


class Bench:
    """One device, and engines on it by one runtime."""

    def __init__(self, kind: str, cache: Path) -> None:
        self.kind, self.cache, self.device = kind, cache, FakeDevice()
        self.trt = FakeTensorRT(kind, self.device) if kind in VERSIONS else None
        self.engines: list[DeviceEngine] = []

    def open(self, bundle: Bundle, sizes: tuple[int, ...] = (8,), **gpu: Any) -> DeviceEngine:
        """Opened, and nothing may be allocated from here on."""
        return self.open_all(bundle, sizes, **{"contexts": 1, **gpu})[0]

    def open_all(
        self, bundle: Bundle, sizes: tuple[int, ...], **gpu: Any
    ) -> tuple[DeviceEngine, ...]:
        if self.trt is None:
            launcher = partial(
                OrtLauncher, graph_from_bundle(bundle, "labeller.onnx"), batch_sizes=sizes,
                provider="CPUExecutionProvider", half=False,
            )  # fmt: skip
            opened = [DeviceEngine(bundle.manifest, "float32", sizes, self.device, launcher)]
        else:
            options = EngineOptions(
                "tensorrt", batch_sizes=sizes, gpu=GpuOptions(cache=self.cache, build=True, **gpu)
            )
            engines = open_engines(bundle, options, self.drivers).engines
            opened = [engine for engine in engines if isinstance(engine, DeviceEngine)]
            assert len(opened) == len(engines)
        self.engines += opened
        self.device.sealed = True
        return tuple(opened)

    @property
    def drivers(self) -> GpuDrivers:
        return GpuDrivers(lambda index: self.device, lambda: self.trt)

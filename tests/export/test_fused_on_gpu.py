"""The fused labeller on a real GPU. Skips with a reason."""

from pathlib import Path

import numpy as np
import pytest

from bundle import Bundle, open_bundle
from bundle.fused import FUSED, fused_from_bytes
from engines import EngineOptions, open_engines
from engines.content import content_columns
from engines.cuda import CudaDevice
from engines.errors import RuntimeMissing
from engines.kernel_runs import KernelRuns, KernelSet
from engines.open_gpu import GpuOptions
from engines.ort import open_ort_engine
from engines.plan_parity import parity_of_arrays, refuse_difference, unfiltered_arrays
from engines.run_memory import bytes_of
from engines.tensorrt_module import tensorrt_module
from tests.export.test_fused_engine import export, rows_of

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def fused_bundle(device: CudaDevice, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A fused bundle for this machine's GPU."""
    folder = tmp_path_factory.mktemp("fused")
    done = export(folder, "--fused", "{}.{}".format(*device.capability))
    assert done.returncode == 0, done.stderr
    return open_bundle(folder / "bundle")


def test_machine_code_labels_what_it_is_given(device: CudaDevice, fused_bundle: Bundle) -> None:
    """Features of zeros: every pixel's label is that of the bias alone, and all agree."""
    fused = fused_from_bytes(fused_bundle.read(FUSED), fused_bundle.file(FUSED))
    capability = "{}.{}".format(*device.capability)
    kernels = KernelSet(fused_bundle, fused, capability)
    device.use()
    stream = device.stream()
    runs = KernelRuns(kernels, device, stream, 2)
    for name, spec in kernels.of_kind("features").items():
        device.fill(runs.addresses[name], 0, bytes_of(spec, 2), stream)
    for name, spec in kernels.of_kind("labels").items():
        device.fill(runs.addresses[name], 0xFF, bytes_of(spec, 2), stream)
    runs.enqueue(2)
    for name, spec in kernels.of_kind("labels").items():
        host = device.pinned(bytes_of(spec, 2))
        device.download(host, runs.addresses[name], stream)
        device.synchronize(stream)
        values = host.view(spec.dtype).reshape(2, *spec.extents).copy()
        device.unpin(host)
        assert np.isfinite(values).all(), name
        first = values[:1, ..., :1, :1]
        np.testing.assert_array_equal(values, np.broadcast_to(first, values.shape), err_msg=name)
    runs.close()
    device.end_stream(stream)


def test_the_fused_engine_gives_what_onnx_runtime_gives(
    fused_bundle: Bundle, tmp_path: Path
) -> None:
    try:
        tensorrt_module()
    except RuntimeMissing as error:
        pytest.skip(str(error))
    gpu = GpuOptions(contexts=1, cache=tmp_path, build=True)
    options = EngineOptions("tensorrt-fused", batch_sizes=(2, 8), gpu=gpu)
    (engine,) = open_engines(fused_bundle, options).engines
    ws = rows_of(fused_bundle, 11)
    found, expected = (unfiltered_arrays(e, ws) for e in (engine, open_ort_engine(fused_bundle)))
    columns = content_columns(fused_bundle.manifest)
    refuse_difference(parity_of_arrays("", expected, found, 8, columns), "float16")
    engine.close()

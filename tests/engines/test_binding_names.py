"""The CUDA and TensorRT names that engines use exist in the installed packages."""

import pytest

from engines.cuda import _runtime
from engines.cuda_kernel import driver_module
from engines.tensorrt_module import tensorrt_rtx_module
from tests.engines.binding_names import cuda_names, driver_names, missing, tensorrt_names
from tests.engines.fake_device import FakeDevice
from tests.engines.fake_tensorrt import MEMBERS, MEMBERS_OF_RTX, RTX, VERSIONS, FakeTensorRT


def test_the_names_are_really_found_in_the_sources() -> None:
    assert {"Builder", "IBuilderConfig.set_tactic_sources", "ILayer.precision"} <= tensorrt_names()
    assert {"cudaMemcpyAsync", "cudaGraphInstantiateWithFlags"} <= cuda_names()
    assert "cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal" in cuda_names()
    attribute = "CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"
    assert {"cuLaunchKernel", "CUresult.CUDA_ERROR_OUT_OF_MEMORY", attribute} <= driver_names()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_name_that_a_version_lacks_is_told(version: str) -> None:
    trt = FakeTensorRT(version, FakeDevice())
    strong = "NetworkDefinitionCreationFlag.STRONGLY_TYPED"
    assert missing(trt, {"Runtime", strong}) == ([strong] if version.startswith("8") else [])


def test_tensorrt_has_every_name() -> None:
    trt = pytest.importorskip("tensorrt", reason="the tensorrt package is not installed")
    unneeded = {
        "BuilderFlag.FP16", "BuilderFlag.OBEY_PRECISION_CONSTRAINTS", "ILayer.precision",
        "ILayer.set_output_type",
    }  # fmt: skip
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        assert set(missing(trt, tensorrt_names())) <= unneeded
    else:
        assert missing(trt, tensorrt_names()) == []
    for enum, members in MEMBERS.get(trt.__version__, {}).items():
        assert missing(getattr(trt, enum), set(members)) == []


def test_tensorrt_for_rtx_has_every_name_of_tensorrt_11() -> None:
    trt = tensorrt_rtx_module()
    unneeded = {  # of networks that are not strongly typed
        "BuilderFlag.FP16", "BuilderFlag.OBEY_PRECISION_CONSTRAINTS", "ILayer.precision",
        "ILayer.set_output_type",
    }  # fmt: skip
    assert set(missing(trt, tensorrt_names())) <= unneeded
    assert trt.__version__ == RTX, "the fake is of another version"
    for enum in ("ComputeCapability", "BuilderFlag", "NetworkDefinitionCreationFlag", "DataType"):
        assert missing(getattr(trt, enum), set(MEMBERS_OF_RTX[enum])) == []


def test_cuda_python_has_every_name() -> None:
    assert missing(_runtime(), cuda_names()) == []
    assert missing(driver_module(), driver_names()) == []

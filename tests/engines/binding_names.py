"""The names of tensorrt and cuda-python that `engines` uses, and those that a package lacks.

Needs nothing but Python, so that it also runs by itself where only those packages are:
python tests/engines/binding_names.py
"""

import ast
import importlib
import re
import sys
from pathlib import Path
from typing import Any

ENGINES = Path(__file__).resolve().parents[2] / "engines"
# What a variable of this name holds, in engines/tensorrt_*.py.
CLASSES = {
    "trt": "", "builder": "Builder", "network": "INetworkDefinition", "config": "IBuilderConfig",
    "parser": "OnnxParser", "layer": "ILayer", "tensor": "ITensor", "t": "ITensor",
    "profile": "IOptimizationProfile", "cache": "ITimingCache", "engine": "ICudaEngine",
    "_engine": "ICudaEngine", "_runtime": "Runtime", "context": "IExecutionContext",
}  # fmt: skip
# Asked for by name, and done without where a version lacks them.
OPTIONAL = {"__version__", "IBuilderConfig.builder_optimization_level"}


def tensorrt_names() -> set[str]:
    """Dotted names, such as IBuilderConfig.set_flag."""
    names = {"IExecutionContext.execute_async_v3"}
    for path in sorted(ENGINES.glob("tensorrt_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Attribute):
                continue
            whole = ast.unparse(node)
            if whole.startswith("trt."):
                names.add(whole.removeprefix("trt."))
            owner = node.value
            name = getattr(owner, "id", getattr(owner, "attr", None))
            if name in CLASSES:
                names.add(".".join(filter(None, (CLASSES[name], node.attr))))
    return names - OPTIONAL


def cuda_names() -> set[str]:
    """Functions and constants of the runtime API."""
    text = (ENGINES / "cuda.py").read_text("utf-8")
    return set(re.findall(r'"(cuda[A-Z]\w+)"', text)) | {
        name
        for chain in re.findall(r"(?:_cuda|runtime)\.(cuda[\w.]+)", text)
        for name in [chain.rstrip(".")]
    }


def driver_names() -> set[str]:
    """Functions and constants of the driver API."""
    text = (ENGINES / "cuda_kernel.py").read_text("utf-8")
    constants = set(re.findall(r"\b(CU_FUNC_\w+)", text))
    return (
        set(re.findall(r'"(cu[A-Z]\w+)"', text))
        | {f"CUfunction_attribute.{name}" for name in constants}
        | {f"CUresult.{name}" for name in re.findall(r"CUresult\.(\w+)", text)}
    )


def missing(package: Any, names: set[str]) -> list[str]:
    """Those that the package does not have."""
    return sorted(name for name in names if not _has(package, name))


def _has(package: Any, name: str) -> bool:
    for part in name.split("."):
        if not hasattr(package, part):
            return False
        package = getattr(package, part)
    return True


if __name__ == "__main__":
    trt = importlib.import_module("tensorrt")
    names = tensorrt_names()
    lacking = missing(trt, names)
    print(f"TensorRT {trt.__version__}: {len(names)} names, missing: {lacking or 'none'}")
    sys.exit(bool(lacking))

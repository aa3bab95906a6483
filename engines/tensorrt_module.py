"""Imports the tensorrt package and hides the differences between its versions 8.5.3 to 11.

TensorRT for RTX is another package, with the interface of TensorRT 11 and versions of its own.

Flags and enum members are looked up by name, because their numbers differ between versions.
Functions that need the package take it as an argument, so that tests can pass a fake.
"""

import logging
from importlib import import_module
from typing import Any

from engines.errors import RuntimeMissing

RTX = "tensorrt_rtx_bindings"
RTX_INTERFACE = 11  # major version of TensorRT that has the interface of TensorRT for RTX 1
_log = logging.getLogger(__name__)


def tensorrt_module() -> Any:
    """The tensorrt package. Raises RuntimeMissing."""
    try:
        return import_module("tensorrt")
    except (ImportError, OSError) as error:  # OSError: a library it needs is missing
        raise RuntimeMissing(
            f"TensorRT is not installed ({error}); install the extra `gpu` on a machine with an "
            "NVIDIA GPU"
        ) from error


def tensorrt_rtx_module() -> Any:
    """The package of TensorRT for RTX. Raises RuntimeMissing."""
    try:
        return import_module("tensorrt_rtx_bindings")
    except (ImportError, OSError) as error:
        raise RuntimeMissing(
            f"TensorRT for RTX is not installed ({error}); install the extra `rtx`"
        ) from error


def is_rtx(trt: Any) -> bool:
    """Whether this is TensorRT for RTX."""
    return bool(trt.__name__ == RTX)


def product_of(trt: Any) -> str:
    """Name of the product, as in the names of engines: "tensorrt" or "tensorrt-rtx"."""
    return "tensorrt-rtx" if is_rtx(trt) else "tensorrt"


def version_of(trt: Any) -> str:
    """Version, for example "8.5.3.1"."""
    return str(trt.__version__)


def major_of(trt: Any) -> int:
    """Major version of the interface, for example 8."""
    return RTX_INTERFACE if is_rtx(trt) else int(version_of(trt).split(".")[0])


def member(trt: Any, enum: str, name: str) -> Any:
    """A member of an enum by name, or None if this version lacks the enum or the member."""
    return getattr(getattr(trt, enum, None), name, None)


def compute_capabilities(trt: Any) -> tuple[str, ...]:
    """GPUs that TensorRT for RTX can build for, ascending: "7.5", ..., "12.1"."""
    numbers = sorted(
        int(name[2:]) for name in trt.ComputeCapability.__members__ if name.startswith("SM")
    )
    return tuple(f"{number // 10}.{number % 10}" for number in numbers)


def compute_capability(trt: Any, text: str) -> Any:
    """The enum's member for "8.9", or None if it has none."""
    return member(trt, "ComputeCapability", f"SM{text.replace('.', '')}")


_LOGGERS: dict[Any, Any] = {}  # by the package's class of loggers; never freed


def logger_from_module(trt: Any) -> Any:
    """The process's logger of this package, which forwards to `logging`.

    There is one, because TensorRT keeps the first logger for its plugins until the process ends,
    whichever builder or runtime brought it. Its `last_error` is the last error line since `forget`,
    or the last warning while there was no error.
    """
    if trt.ILogger not in _LOGGERS:
        _LOGGERS[trt.ILogger] = _new_logger(trt)
    return _LOGGERS[trt.ILogger]


def _new_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # super() does not reach a class of pybind11
            self.forget()

        def forget(self) -> None:
            """Called before what may fail, so that no line of an earlier failure explains it."""
            self.last_error = "TensorRT gave no reason"
            self._had_error = False

        def log(self, severity: Any, msg: str) -> None:
            name = getattr(severity, "name", str(severity))
            line = " ".join(msg.split())
            error = name in ("ERROR", "INTERNAL_ERROR")
            if error or (name == "WARNING" and not self._had_error):
                self.last_error = line  # without a GPU there are only warnings
            self._had_error = self._had_error or error
            _log.log(_LEVELS.get(name, logging.DEBUG), "TensorRT: %s", line)

    return Logger()


# Errors become exceptions, which are logged where they are handled. Warnings are mostly noise: one
# for every 64-bit integer in the graph.
_LEVELS = {"INTERNAL_ERROR": logging.INFO, "ERROR": logging.INFO}

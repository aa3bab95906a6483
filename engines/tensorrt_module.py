"""The tensorrt package, and what its versions from 8.5.3 to 11 call the same things.

Always by name: the numbers of flags moved between versions. Whoever needs the package takes it
as an argument, so that tests can pass a stand-in.
"""

import logging
from importlib import import_module
from typing import Any

from engines.errors import RuntimeMissing

_log = logging.getLogger(__name__)


def tensorrt_module() -> Any:
    """The package. Raises RuntimeMissing."""
    try:
        return import_module("tensorrt")
    except (ImportError, OSError) as error:  # OSError: a library it needs is missing
        raise RuntimeMissing(
            f"TensorRT is not installed ({error}); install the extra `gpu` on a machine with an "
            "NVIDIA GPU"
        ) from error


def version_of(trt: Any) -> str:
    """For example "8.5.3.1"."""
    return str(trt.__version__)


def major_of(trt: Any) -> int:
    """For example 8."""
    return int(version_of(trt).split(".")[0])


def member(trt: Any, enum: str, name: str) -> Any:
    """A member of an enum, or None where this version has none of that name."""
    return getattr(getattr(trt, enum, None), name, None)


def logger_from_module(trt: Any) -> Any:
    """A logger that hands on what TensorRT says; `last_error` is its last complaint."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # super() does not reach a class of pybind11
            self.last_error = "it does not say why"
            self._complained = False

        def log(self, severity: Any, msg: str) -> None:
            name = getattr(severity, "name", str(severity))
            line = " ".join(msg.split())
            error = name in ("ERROR", "INTERNAL_ERROR")
            if error or (name == "WARNING" and not self._complained):
                self.last_error = line  # without a GPU there are warnings alone
            self._complained = self._complained or error
            _log.log(_LEVELS.get(name, logging.DEBUG), "TensorRT: %s", line)

    return Logger()


# Errors become exceptions, which are logged where they are handled; there is a warning for every
# integer that the graph has in 64 bits.
_LEVELS = {"INTERNAL_ERROR": logging.INFO, "ERROR": logging.INFO}

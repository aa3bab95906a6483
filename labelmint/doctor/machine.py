"""Checks of the local installation: versions, protobuf, extras, and malloc's settings.

Nothing enters. Leave: checks; no server is called.
"""

from __future__ import annotations

import importlib.util
import platform
import resource
from collections.abc import Iterator

import google.protobuf
import grpc
import numpy as np
from google.protobuf.internal import api_implementation

import labelmint
from labelmint.doctor.connection import Check, CheckStatus
from labelmint.extras import install_from_extra
from labelmint.v1 import label_service_pb2 as pb

EXTRAS = {  # name of the extra: modules that it installs
    "cli": ("click", "jinja2", "PIL", "tqdm"),
    "datasets": ("pycocotools", "webdataset"),
    "jpeg": ("simplejpeg",),
    "torch": ("torch",),
}
KEEP_BYTES = 32 << 20  # the largest mmap threshold that glibc accepts
_MESSAGE_BYTES = 4 << 20  # size of a full message with the server's default settings
_WARM_ROUNDS, _ROUNDS = 4, 8


def machine_checks() -> Iterator[Check]:
    """Versions, protobuf implementation, installed extras, and page faults per message."""
    yield Check(
        "versions",
        CheckStatus.OK,
        f"labelmint {labelmint.__version__}, Python {platform.python_version()}, "
        f"grpcio {grpc.__version__}, numpy {np.__version__}",
    )
    yield protobuf_check(google.protobuf.__version__, api_implementation.Type())
    missing = {
        extra: [name for name in modules if importlib.util.find_spec(name) is None]
        for extra, modules in EXTRAS.items()
    }
    yield extras_check({extra: modules for extra, modules in missing.items() if modules})
    yield memory_check(faults_per_message(), resource.getpagesize())


def protobuf_check(version: str, implementation: str) -> Check:
    """Checks that protobuf parses messages in C."""
    found = f"{version}, implementation {implementation}"
    if implementation != "python":
        return Check("protobuf", CheckStatus.OK, found)
    return Check(
        "protobuf",
        CheckStatus.WARN,
        f"{found}: many times slower than the implementation upb",
        "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, or reinstall protobuf from a wheel",
    )


def extras_check(missing: dict[str, list[str]]) -> Check:
    """Lists installed extras; a missing one is no failure.

    Args:
        missing: modules that are not installed, by extra.
    """
    present = ", ".join(extra for extra in EXTRAS if extra not in missing) or "none"
    if not missing:
        return Check("extras", CheckStatus.OK, present)
    absent = "; ".join(f"{extra} (needs {', '.join(names)})" for extra, names in missing.items())
    return Check(
        "extras",
        CheckStatus.OK,
        f"{present}; not installed: {absent}",
        f"to install them: {install_from_extra(','.join(missing))}",
    )


def memory_check(faults: int, page_bytes: int) -> Check:
    """Checks that malloc keeps freed memory for the next message instead of returning it.

    Args:
        faults: page faults for one message, see `faults_per_message`.
        page_bytes: size of a memory page.
    """
    if faults * page_bytes < _MESSAGE_BYTES // 4:
        return Check("memory", CheckStatus.OK, f"{faults} page faults for a message of 4 MiB")
    return Check(
        "memory",
        CheckStatus.WARN,
        f"{faults} page faults for each message of 4 MiB: malloc gives freed memory back",
        f"export MALLOC_MMAP_THRESHOLD_={KEEP_BYTES} MALLOC_TRIM_THRESHOLD_={KEEP_BYTES} "
        "before starting the process that reads samples",
    )


def faults_per_message() -> int:
    """Page faults of this thread for one message of 4 MiB, measured after a warm-up.

    Measures malloc instead of reading its settings, which may come from several places.
    """
    thread = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
    array = np.zeros(_MESSAGE_BYTES, np.uint8)
    before = 0
    for number in range(_WARM_ROUNDS + _ROUNDS):
        if number == _WARM_ROUNDS:
            before = resource.getrusage(thread).ru_minflt
        sent = pb.Tensor(data=array.tobytes()).SerializeToString()
        np.frombuffer(pb.Tensor.FromString(sent).data, np.uint8).copy()
    return (resource.getrusage(thread).ru_minflt - before) // _ROUNDS

"""Checks of this machine's installation; no server is asked."""

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
from labelmint.doctor.connection import Check, State
from labelmint.v1 import label_service_pb2 as pb

EXTRAS = {  # extra of labelmint: modules that it brings
    "cli": ("click", "jinja2", "PIL", "tqdm"),
    "datasets": ("pycocotools", "webdataset"),
    "jpeg": ("simplejpeg",),
    "torch": ("torch",),
}
KEEP_BYTES = 32 << 20  # the largest mmap threshold that glibc accepts
_MESSAGE_BYTES = 4 << 20  # of a message as servers send them
_WARM_ROUNDS, _ROUNDS = 4, 8


def machine_checks() -> Iterator[Check]:
    """Versions, protobuf's speed, extras, and what large messages cost."""
    yield Check(
        "versions",
        State.OK,
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
    """Whether messages are parsed in C."""
    found = f"{version}, implementation {implementation}"
    if implementation != "python":
        return Check("protobuf", State.OK, found)
    return Check(
        "protobuf",
        State.WARN,
        f"{found}: many times slower than upb",
        "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, or reinstall protobuf from a wheel",
    )


def extras_check(missing: dict[str, list[str]]) -> Check:
    """Which extras are at hand; none has to be."""
    present = ", ".join(extra for extra in EXTRAS if extra not in missing) or "none"
    if not missing:
        return Check("extras", State.OK, present)
    absent = "; ".join(f"{extra} lacks {', '.join(names)}" for extra, names in missing.items())
    return Check(
        "extras",
        State.OK,
        f"{present}; not installed: {absent}",
        f"if you need them: pip install 'labelmint[{','.join(missing)}]'",
    )


def memory_check(faults: int, page_bytes: int) -> Check:
    """Whether malloc keeps the memory of messages, or returns it and faults it in anew."""
    if faults * page_bytes < _MESSAGE_BYTES // 4:
        return Check("memory", State.OK, f"{faults} page faults for a message of 4 MiB")
    return Check(
        "memory",
        State.WARN,
        f"{faults} page faults for each message of 4 MiB: freed memory goes back to the system",
        f"export MALLOC_MMAP_THRESHOLD_={KEEP_BYTES} MALLOC_TRIM_THRESHOLD_={KEEP_BYTES} "
        "before the process that reads samples",
    )


def faults_per_message() -> int:
    """Page faults of this thread for handling one message of 4 MiB, once it is used to them.

    Looks at what malloc does instead of at its settings, which have many sources.
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

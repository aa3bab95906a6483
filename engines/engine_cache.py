"""The folder of built engines: <bundle_id>/<gpu>-<trt version>-<precision>.plan and its .json;
the fused labeller's are two, -taps.plan and -filter.plan.

An engine counts as built when both lie there and agree; whatever else is found is refused by
name. Nothing of a plan reaches TensorRT before its hash fits: a plan holds code.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from bundle.files import replace_file
from engines.device import Device
from engines.errors import EngineOpenError, PlanError, PlanMissing
from engines.plan_parity import PlanParity, Precision

DEFAULT_CACHE = Path("~/.cache/labelmint/engines")
MAX_SIDECAR_BYTES = 1 << 20
GraphName = Literal["labeller", "taps", "filter"]  # the whole, or what is around the kernels


class Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known of a plan."""

    format: Literal[1] = 1
    bundle_id: str
    gpu: str
    capability: tuple[int, int]
    tensorrt: str  # version
    precision: Precision
    graph: GraphName = "labeller"
    batch_sizes: list[int]
    size: int  # bytes of the plan
    sha256: str
    parity: list[PlanParity]  # of every batch size
    build_seconds: float


@dataclass(frozen=True)
class EngineKey:
    """What a plan is good for, and nothing else."""

    bundle_id: str
    gpu: str
    capability: tuple[int, int]
    tensorrt: str
    precision: Precision
    graph: GraphName = "labeller"


def key_of(
    bundle_id: str,
    device: Device,
    tensorrt: str,
    precision: Precision,
    graph: GraphName = "labeller",
) -> EngineKey:
    """The plan that this GPU and version can run."""
    return EngineKey(bundle_id, device.name, device.capability, tensorrt, precision, graph)


def plan_path(cache: Path, key: EngineKey) -> Path:
    """Where the plan lies, or would."""
    gpu = f"{_slug(key.gpu)}-sm{key.capability[0]}{key.capability[1]}"
    part = "" if key.graph == "labeller" else f"-{key.graph}"
    name = f"{gpu}-{_slug(key.tensorrt)}-{key.precision}{part}.plan"
    return cache.expanduser() / _slug(key.bundle_id) / name


def read_plan(path: Path, key: EngineKey) -> tuple[bytes, Sidecar]:
    """The plan's bytes, checked. Raises PlanMissing, PlanError."""
    sidecar = read_sidecar(path)
    found = EngineKey(
        sidecar.bundle_id,
        sidecar.gpu,
        sidecar.capability,
        sidecar.tensorrt,
        sidecar.precision,
        sidecar.graph,
    )
    for name in EngineKey.__dataclass_fields__:
        here, there = getattr(key, name), getattr(found, name)
        if here != there:
            raise PlanError(f"{path} is for {name} {there}; here it is {here}, build it again")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PlanError(f"{path} cannot be read ({error.strerror}); build it again") from error
    if len(data) != sidecar.size:
        raise PlanError(
            f"{path} has {len(data)} bytes, its .json says {sidecar.size}; build it again"
        )
    if hashlib.sha256(data).hexdigest() != sidecar.sha256:
        raise PlanError(f"{path} has another SHA-256 than its .json says; build it again")
    return data, sidecar


def read_sidecar(path: Path) -> Sidecar:
    """What lies beside a plan. Raises PlanMissing, PlanError."""
    file = path.with_suffix(".json")
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_SIDECAR_BYTES + 1)
    except FileNotFoundError:
        raise PlanMissing(
            f"there is no engine {path}; build it by `python -m export engine` or --build-engine"
        ) from None
    except OSError as error:
        raise PlanError(f"{file} cannot be read ({error.strerror})") from error
    if len(data) > MAX_SIDECAR_BYTES:
        raise PlanError(f"{file} has over {MAX_SIDECAR_BYTES} bytes; it describes no engine")
    try:
        return msgspec.json.decode(data, type=Sidecar)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise PlanError(f"{file} does not describe an engine: {reason}; build it again") from error


def write_plan(path: Path, data: bytes, sidecar: Sidecar) -> None:
    """Puts a plan and its description in place. A crash between the two leaves no engine, never
    one that another file describes. Call it within `building`."""
    described = path.with_suffix(".json")
    described.unlink(missing_ok=True)
    _write(path, data)
    _write(described, msgspec.json.format(msgspec.json.encode(sidecar), indent=2) + b"\n")


@contextmanager
def building(path: Path) -> Iterator[None]:
    """One process at a time builds a plan; the others wait, and find it. Raises EngineOpenError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise EngineOpenError(
            f"{path.parent} cannot be written ({error.strerror}); give another --engine-cache"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    try:
        replace_file(path, data)
    except OSError as error:
        raise EngineOpenError(f"{path} cannot be written ({error.strerror})") from error


def _slug(text: str) -> str:
    """Lower case, and nothing that leads out of a folder or needs quoting."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")

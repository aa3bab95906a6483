"""The folder of built TensorRT engines (plans): reads, writes and locks its files.

Layout: <bundle_id>/<gpu>-<TensorRT version>-<precision>.plan with a .json beside it (the sidecar);
the fused labeller has two plans, -taps.plan and -filter.plan. A plan is used only if its sidecar
matches; anything else is refused with the reason. The SHA-256 is checked before TensorRT reads a
plan, because plans contain code.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bundle.files import read_regular_file, replaced_file
from engines.device import Device
from engines.errors import EngineOpenError, PlanError, PlanMissing
from engines.plan_parity import PlanParity
from engines.protocol import Precision

DEFAULT_CACHE = Path("~/.cache/labelmint/engines")
MAX_SIDECAR_BYTES = 1 << 20
MAX_PLAN_BYTES = 16 << 30
# The whole labeller, or the parts before ("taps") and after ("filter") the fused kernels.
GraphName = Literal["labeller", "taps", "filter"]


class Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Description of a plan, the .json file beside it."""

    format: Literal[1] = 1
    bundle_id: str
    gpu: str
    capability: tuple[int, int]
    tensorrt: str  # version
    precision: Precision
    graph: GraphName = "labeller"
    batch_sizes: list[int]
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_PLAN_BYTES)]  # bytes of the plan
    sha256: str
    parity: list[PlanParity]  # one per batch size
    build_seconds: float


@dataclass(frozen=True)
class EngineKey:
    """The bundle, GPU, version and precision that a plan is valid for."""

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
    """Key of the plan that this GPU and TensorRT version can run."""
    return EngineKey(bundle_id, device.name, device.capability, tensorrt, precision, graph)


def plan_path(cache: Path, key: EngineKey) -> Path:
    """Path of the plan's file, whether it exists or not."""
    gpu = f"{_slug(key.gpu)}-sm{key.capability[0]}{key.capability[1]}"
    part = "" if key.graph == "labeller" else f"-{key.graph}"
    name = f"{gpu}-{_slug(key.tensorrt)}-{key.precision}{part}.plan"
    return cache.expanduser() / _slug(key.bundle_id) / name


def read_plan(path: Path, key: EngineKey) -> tuple[bytes, Sidecar]:
    """The plan's bytes and sidecar, checked against the key. Raises PlanMissing, PlanError."""
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
        wanted, built_for = getattr(key, name), getattr(found, name)
        if wanted != built_for:
            raise PlanError(
                f"{path} was built for {name} {built_for}; {name} is {wanted} here, build it again"
            )
    try:
        data = read_regular_file(path, sidecar.size)
    except OSError as error:
        raise PlanError(f"{path} cannot be read ({error.strerror}); build it again") from error
    if len(data) != sidecar.size:
        raise PlanError(
            f"{path} does not have the {sidecar.size} bytes that its .json says; build it again"
        )
    if hashlib.sha256(data).hexdigest() != sidecar.sha256:
        raise PlanError(f"{path} does not have the SHA-256 in its .json; build it again")
    return data, sidecar


def read_sidecar(path: Path) -> Sidecar:
    """The sidecar of a plan. Raises PlanMissing, PlanError."""
    file = path.with_suffix(".json")
    try:
        data = read_regular_file(file, MAX_SIDECAR_BYTES)
    except FileNotFoundError:
        raise PlanMissing(
            f"engine {path} does not exist; build it with `python -m export engine` or "
            "--build-engine"
        ) from None
    except OSError as error:
        raise PlanError(f"{file} cannot be read ({error.strerror})") from error
    if len(data) > MAX_SIDECAR_BYTES:
        raise PlanError(
            f"{file} has over {MAX_SIDECAR_BYTES} bytes, so it does not describe an engine; build "
            "it again"
        )
    try:
        return msgspec.json.decode(data, type=Sidecar)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise PlanError(f"{file} does not describe an engine: {reason}; build it again") from error


def write_plan(path: Path, data: bytes, sidecar: Sidecar) -> None:
    """Writes a plan and its sidecar, within `build_lock`. Raises EngineOpenError.

    On a full disk the old plan stays. The old sidecar is removed before the plan takes its place:
    after a crash there is no engine, never a plan with the sidecar of another.
    """
    file = path.with_suffix(".json")
    description = msgspec.json.format(msgspec.json.encode(sidecar), indent=2) + b"\n"
    try:
        with replaced_file(file) as described, replaced_file(path) as plan:
            plan.write_bytes(data)
            described.write_bytes(description)
            file.unlink(missing_ok=True)
    except OSError as error:
        raise EngineOpenError(f"{path} cannot be written ({error.strerror})") from error


@contextmanager
def build_lock(path: Path) -> Iterator[None]:
    """Holds a file lock while one process builds a plan; other processes wait and then find the
    plan built. Raises EngineOpenError."""
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


def _slug(text: str) -> str:
    """The text in lower case, reduced to characters that are safe in a file name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")

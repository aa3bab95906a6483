"""The engine cache gives back what was put there for exactly this machine, or names the fault."""

import hashlib
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.engine_cache import (
    MAX_SIDECAR_BYTES,
    EngineKey,
    Sidecar,
    build_lock,
    plan_path,
    read_plan,
    write_plan,
)
from engines.errors import EngineOpenError, PlanError, PlanMissing
from engines.plan_parity import PlanParity
from tests.full_disk import files_of_at_most
from tests.hangs import HANG_S

KEY = EngineKey("sha256:" + "ab" * 32, "NVIDIA H200", (9, 0), "10.3.0", "float16")
DATA = b"a plan"
PARITY = PlanParity(
    reference="onnxruntime-cpu",
    batch_size=4,
    samples=16,
    image_max_steps=1,
    image_share_within_1=1.0,
    mask_mismatch_share=0.0,
    uncertainty_max_excess=None,
    keypoints_p95_px=None,
    depth_max_relative=None,
)


def sidecar(**changes: Any) -> Sidecar:
    fields: dict[str, Any] = {
        "bundle_id": KEY.bundle_id, "gpu": KEY.gpu, "capability": KEY.capability,
        "tensorrt": KEY.tensorrt, "precision": KEY.precision, "batch_sizes": [4],
        "size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest(), "parity": [PARITY],
        "build_seconds": 1.5,
    }  # fmt: skip
    return Sidecar(**(fields | changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = plan_path(tmp_path, KEY)
    with build_lock(path):
        write_plan(path, DATA, sidecar())
    return path


def test_an_engine_is_found_under_bundle_gpu_version_and_precision(path: Path) -> None:
    assert path.parts[-2:] == (
        "sha256-" + "ab" * 32,
        "nvidia-h200-sm90-10.3.0-float16.plan",
    )
    assert read_plan(path, KEY) == (DATA, sidecar())
    assert {file.suffix for file in path.parent.iterdir()} == {".plan", ".json", ".lock"}


def test_no_name_leads_out_of_the_cache(tmp_path: Path) -> None:
    key = EngineKey("../../etc", "/../x", (9, 0), "../1", "float16")
    assert plan_path(tmp_path, key).resolve().is_relative_to(tmp_path.resolve())
    assert plan_path(tmp_path, key).parent.parent == tmp_path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bundle_id": "sha256:00"}, "was built for bundle_id sha256:00; bundle_id is sha256:abab"),
        ({"gpu": "NVIDIA A100"}, "was built for gpu NVIDIA A100; gpu is NVIDIA H200 here"),
        ({"capability": (8, 0)}, r"was built for capability \(8, 0\)"),
        ({"tensorrt": "8.5.3.1"}, "was built for tensorrt 8.5.3.1; tensorrt is 10.3.0 here"),
        ({"precision": "float32"}, "was built for precision float32"),
        ({"size": 7}, "does not have the 7 bytes"),
        ({"sha256": "0" * 64}, "does not have the SHA-256"),
    ],
)
def test_an_engine_of_another_kind_is_refused_by_name(
    path: Path, change: dict[str, Any], words: str
) -> None:
    path.with_suffix(".json").write_bytes(msgspec.json.encode(sidecar(**change)))
    with pytest.raises(PlanError, match=words) as caught:
        read_plan(path, KEY)
    assert "\n" not in str(caught.value) and "build it again" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"a pl\0n", b"a plan and more", b"b plan"])
def test_a_spoilt_plan_is_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(PlanError, match="build it again"):
        read_plan(path, KEY)


def test_half_an_engine_is_refused(path: Path) -> None:
    path.unlink()
    with pytest.raises(PlanError, match="cannot be read"):
        read_plan(path, KEY)
    path.write_bytes(DATA)
    path.with_suffix(".json").unlink()
    with pytest.raises(PlanMissing, match="python -m export engine"):
        read_plan(path, KEY)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"{}" + b" " * MAX_SIDECAR_BYTES,
        b'{"format": 2}', b'{"format": 1, "extra": 0}', b'{"format": 1}',
    ],
)  # fmt: skip
def test_a_hostile_description_is_refused_in_one_line(path: Path, text: bytes) -> None:
    path.with_suffix(".json").write_bytes(text)
    with pytest.raises(PlanError, match=r"\.json") as caught:
        read_plan(path, KEY)
    assert "\n" not in str(caught.value)


@given(st.data())
def test_a_description_with_any_wrong_value_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = plan_path(tmp_path_factory.mktemp("cache"), KEY)
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    good = json.loads(msgspec.json.encode(sidecar()))
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=5,
    )
    checked = sorted(set(good) - {"batch_sizes", "parity", "build_seconds"})
    field = data.draw(st.sampled_from(checked))
    value = data.draw(junk.filter(lambda v: v != good[field]))
    path.with_suffix(".json").write_text(json.dumps(good | {field: value}))
    with pytest.raises(PlanError):
        read_plan(path, KEY)


def test_a_description_that_cannot_be_made_leaves_the_old_engine(path: Path) -> None:
    with pytest.raises(TypeError):
        write_plan(path, b"a newer plan", sidecar(parity=[object()]))
    assert read_plan(path, KEY) == (DATA, sidecar())


def test_a_crash_between_plan_and_description_leaves_no_engine(path: Path) -> None:
    before = path.with_suffix(".json").read_bytes()
    write_plan(path, b"newer.", sidecar(sha256=hashlib.sha256(b"newer.").hexdigest()))
    path.with_suffix(".json").write_bytes(before)  # the plan alone was replaced
    with pytest.raises(PlanError, match="SHA-256"):
        read_plan(path, KEY)


@pytest.mark.parametrize("size", [5, 100])  # too small for the plan, for the description
def test_a_full_disk_leaves_the_old_engine_and_nothing_else(path: Path, size: int) -> None:
    data, files = b"p" * 10, sorted(path.parent.iterdir())
    with (
        files_of_at_most(size),
        pytest.raises(EngineOpenError, match=f"{path.name} cannot be written .File too large"),
    ):
        write_plan(path, data, sidecar(size=10, sha256=hashlib.sha256(data).hexdigest()))
    assert sorted(path.parent.iterdir()) == files
    assert read_plan(path, KEY) == (DATA, sidecar())


def test_nothing_is_written_where_that_is_not_allowed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(EngineOpenError, match="cannot be written"),
        build_lock(plan_path(tmp_path / "file", KEY)),
    ):
        raise AssertionError("not reached")


def _append(path: Path, log: Path, start: Any) -> None:
    start.wait(HANG_S)
    with build_lock(path):
        for word in ("in", "out"):
            with log.open("a") as stream:
                stream.write(f"{os.getpid()} {word}\n")
            time.sleep(0.02)  # for the others to come in, if they can


def test_one_process_builds_at_a_time(tmp_path: Path) -> None:
    path, log = plan_path(tmp_path, KEY), tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(4)
    processes = [context.Process(target=_append, args=(path, log, start)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(HANG_S)
        assert process.exitcode == 0
    words = [line.split() for line in log.read_text().splitlines()]
    assert len(words) == 8
    for (who_in, first), (who_out, second) in zip(words[::2], words[1::2], strict=True):
        assert (first, second) == ("in", "out") and who_in == who_out

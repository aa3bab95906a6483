"""Doctor's checks one by one: what they judge, and what they say to do."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement

from labelmint.cli.doctor import line_from_check
from labelmint.doctor.connection import Check, CheckStatus
from labelmint.doctor.machine import EXTRAS, KEEP_BYTES, extras_check, memory_check, protobuf_check
from labelmint.doctor.server import filter_check, size_check
from labelmint.model import Model, model_from_proto
from labelmint.wire.faults import endpoint_from_target
from tests.client.scripted_service import MODEL

if sys.version_info >= (3, 11):
    import tomllib

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("target", "endpoint"),
    [
        ("host:1", ("host", 1)),
        ("dns:///name.example:50051", ("name.example", 50051)),
        ("dns://8.8.8.8/name:5", ("name", 5)),
        ("dns:name:5", ("name", 5)),
        ("[::1]:7", ("::1", 7)),
        ("ipv4:10.0.0.1:9", ("10.0.0.1", 9)),
        ("ipv6:[fe80::1]:9", ("fe80::1", 9)),
        ("ipv4:10.0.0.1:9,10.0.0.2:9", None),
        ("unix:/run/labelmint", None),
        ("host", None),
        ("::1", None),
        ("", None),
    ],
)
def test_endpoints_are_read_off_targets(target: str, endpoint: tuple[str, int] | None) -> None:
    assert endpoint_from_target(target) == endpoint


def model(**changes: object) -> Model:
    values = {**vars(model_from_proto(MODEL)), **changes}
    return Model(**values)


def test_models_that_cannot_be_filtered_or_do_not_fit_are_warned_of() -> None:
    assert filter_check(model()).status is CheckStatus.OK
    assert "calibrate BUNDLE --samples" in filter_check(model(calibrated=False)).fix
    assert filter_check(model(score_source="")).status is CheckStatus.WARN
    assert size_check(model()).status is CheckStatus.OK
    large = size_check(model(image_size=(1024, 1024), label_size=(1024, 1024)))
    assert large.status is CheckStatus.WARN and "max_message_bytes=" in large.fix
    huge = size_check(model(image_size=(8192, 8192), label_size=(8192, 8192)))
    assert huge.status is CheckStatus.WARN and "64 MiB" in huge.found


def test_a_line_stays_one_line_whatever_a_server_says() -> None:
    line = line_from_check(Check("model \x1b[2J\nok", CheckStatus.WARN, "a\r\nb\x00", "c\u2028d"))
    assert len(line.splitlines()) == 1
    assert click.unstyle(line).isprintable()
    assert len(line_from_check(Check("server", CheckStatus.OK, "v" * (1 << 20)))) < 5000


def test_slow_protobuf_and_missing_extras_are_told() -> None:
    assert protobuf_check("1.2", "upb").status is CheckStatus.OK
    assert protobuf_check("1.2", "python").status is CheckStatus.WARN
    check = extras_check({"datasets": ["webdataset"], "torch": ["torch"]})
    assert check.status is CheckStatus.OK
    assert "datasets (needs webdataset)" in check.found
    assert "pip install '.[datasets,torch]'" in check.fix


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is of Python 3.11")
def test_the_extras_are_those_of_the_package() -> None:
    document = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    modules = {"Pillow": "PIL", "Jinja2": "jinja2"}
    for extra, names in EXTRAS.items():
        requirements = document["project"]["optional-dependencies"][extra]
        brought = [Requirement(each).name for each in requirements]
        assert sorted(modules.get(name, name) for name in brought) == sorted(names)


def test_memory_is_judged_by_the_bytes_that_are_faulted_in() -> None:
    assert memory_check(0, 4096).status is CheckStatus.OK
    assert memory_check(1024, 4096).status is CheckStatus.WARN
    assert memory_check(17, 65536).status is CheckStatus.WARN
    assert str(KEEP_BYTES) in memory_check(4096, 4096).fix


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
def test_the_fix_for_memory_is_one() -> None:
    code = (
        "import resource; from labelmint.doctor.machine import *;"
        "print(memory_check(faults_per_message(), resource.getpagesize()).status.value)"
    )
    found = []
    for settings in ({}, dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"))):
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))
        }
        environment |= {name: str(KEEP_BYTES) for name in settings}
        run = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        found.append(run.stdout.strip())
    assert found == ["warn", "ok"]

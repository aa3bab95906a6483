"""The data set job's command, run for each part, writes the same samples as a single run, and ends
with the exit codes that the job tells apart."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labelmint.cli.exit_codes import USAGE, WRONG_FOLDER
from tests.deploy.cases import CLAIM, JOB
from tests.deploy.chart import CHECKOUT, Object, render
from tests.hangs import HANG_S
from tests.service.test_process import bundle_at, running

PARTS = 3


def rendered_job(**values: Any) -> Object:
    given = {"enabled": True, "claim": "d", "parts": PARTS, "format": "png", "endIndex": 20}
    objects = render({"dataset": given | values, "engine": {"runtime": "fake"}})
    (job,) = (found for found in objects if found["kind"] == "Job")
    return job


def command_of_part(part: int, data: Path, **values: Any) -> list[str]:
    """The command as the kubelet runs it, with variables expanded and the claim mounted."""
    job = rendered_job(**values)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    words = [*container["command"], *container["args"]]
    words = [word.replace("$(JOB_COMPLETION_INDEX)", str(part)) for word in words]
    return [sys.executable, *(word.replace("/data/", f"{data}/") for word in words[1:])]


def samples(folder: Path) -> dict[str, bytes]:
    """The files of the samples, by kind and index."""
    files = [*folder.glob("*/*.png"), *folder.glob("*/*.npy")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def out_of(line: list[str]) -> Path:
    """The folder that a command writes to."""
    (out,) = (Path(word.partition("=")[2]) for word in line if word.startswith("--out="))
    return out


def test_a_part_that_can_never_succeed_ends_the_job(tmp_path: Path) -> None:
    """By the real exit codes: of wrong usage, and of a folder of another download."""
    rules = rendered_job()["spec"]["podFailurePolicy"]["rules"]
    (final,) = (rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "FailJob")
    assert final == [USAGE, WRONG_FOLDER]
    taken = command_of_part(1, tmp_path)
    out_of(taken).mkdir(parents=True)
    (out_of(taken) / "notes.txt").write_text("of another program")
    ended = {
        USAGE: command_of_part(0, tmp_path, args=["--keep-fraction", "2"]),
        WRONG_FOLDER: taken,
    }
    environment = {**os.environ, "LABELMINT_TARGET": "127.0.0.1:1"}
    started = {
        code: subprocess.Popen(
            line, cwd=CHECKOUT, env=environment, stderr=subprocess.PIPE, text=True
        )
        for code, line in ended.items()
    }
    for code, process in started.items():
        _, said = process.communicate(timeout=HANG_S)
        assert process.returncode == code, said


def test_samples_that_differ_are_in_folders_that_differ_and_others_are_gone_on_with(
    tmp_path: Path,
) -> None:
    same: list[Object] = [
        {},
        {"parallelism": 1},
        {"retries": 9},
        {"resources": {"limits": {"memory": "9Gi"}}},
    ]
    other: list[Object] = [
        {"seed": 1},
        {"parts": 8},
        {"endIndex": 21},
        {"format": "coco"},
        {"args": ["--tls"]},
    ]
    folders = [out_of(command_of_part(0, tmp_path, **values)).parent for values in (*same, *other)]
    assert len(set(folders[: len(same)])) == 1
    assert len(set(folders)) == 1 + len(other)
    assert all(re.fullmatch("dataset-[0-9a-f]{8}", folder.name) for folder in folders)
    named = set()
    for bundle in (f"sha256:{1:064}", f"sha256:{2:064}"):
        objects = render({"models": [CLAIM | {"bundleId": bundle}], "dataset": JOB})
        named |= {str(found) for found in objects if found["kind"] == "Job"}
    assert len({re.search("dataset-[0-9a-f]{8}/", job) for job in named}) == 2


@pytest.mark.long
def test_parts_from_several_replicas_are_one_unsharded_run(tmp_path: Path) -> None:
    bundle = bundle_at(tmp_path / "bundle")
    with (
        running(bundle, "--engine", "fake") as first,
        running(bundle, "--engine", "fake") as second,
    ):
        target = f"ipv4:127.0.0.1:{first.port},127.0.0.1:{second.port}"

        def run(line: list[str]) -> str:
            environment = {**os.environ, "LABELMINT_TARGET": target}
            done = subprocess.run(
                line, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=HANG_S
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        spec = rendered_job()["spec"]
        assert (spec["completionMode"], spec["completions"]) == ("Indexed", PARTS)
        lines = [command_of_part(part, tmp_path) for part in range(PARTS)]
        for line in lines:
            run(line)
        whole = tmp_path / "whole"
        run([*lines[0][:4], f"--out={whole}", "--format=png", "--end-index=20", "--seed=0"])
        parts = [samples(out_of(line)) for line in lines]
        assert sum(map(len, parts)) == len(samples(whole)) == 60  # image, mask, depth of each
        assert {name: data for part in parts for name, data in part.items()} == samples(whole)
        index = out_of(lines[1]) / "images/000000000001.png"
        written = index.stat().st_mtime_ns
        run(lines[1])  # a pod that is started again after its end
        assert index.stat().st_mtime_ns == written

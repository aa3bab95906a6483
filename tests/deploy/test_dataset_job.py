"""The data set job's command, run for each part, writes the same samples as a single run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.chart import CHECKOUT, render
from tests.hangs import HANG_S
from tests.service.test_process import bundle_at, running

PARTS = 3


def command_of_part(part: int, data: Path) -> list[str]:
    """The command as the kubelet runs it, with variables expanded and the claim mounted."""
    values = {"enabled": True, "claim": "d", "parts": PARTS, "format": "png", "endIndex": 20}
    objects = render({"dataset": values, "engine": {"runtime": "fake"}})
    (job,) = (found for found in objects if found["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert (job["spec"]["completionMode"], job["spec"]["completions"]) == ("Indexed", PARTS)
    words = [*container["command"], *container["args"]]
    words = [word.replace("$(JOB_COMPLETION_INDEX)", str(part)) for word in words]
    return [sys.executable, *(word.replace("/data/", f"{data}/") for word in words[1:])]


def samples(folder: Path) -> dict[str, bytes]:
    """The files of the samples, by kind and index."""
    files = [*folder.glob("*/*.png"), *folder.glob("*/*.npy")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


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

        lines = [command_of_part(part, tmp_path) for part in range(PARTS)]
        for line in lines:
            run(line)
        whole = tmp_path / "whole"
        run([*lines[0][:4], f"--out={whole}", "--format=png", "--end-index=20", "--seed=0"])
        parts = [samples(tmp_path / "dataset" / f"part-{part}") for part in range(PARTS)]
        assert sum(map(len, parts)) == len(samples(whole)) == 60  # image, mask, depth of each
        assert {name: data for part in parts for name, data in part.items()} == samples(whole)
        index = tmp_path / "dataset/part-1/images/000000000001.png"
        written = index.stat().st_mtime_ns
        run(lines[1])  # a pod that is started again after its end
        assert index.stat().st_mtime_ns == written

"""Generated code: fresh, and loadable by the oldest runtimes that are declared."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

CHECKOUT = Path(__file__).resolve().parents[2]
GENERATED = CHECKOUT / "labelmint" / "v1"
ROUND_TRIP = """
import numpy as np
from labelmint import Client
from labelmint.codec import array_from_tensor, tensor_from_array
from labelmint.latents import latents
from labelmint.v1 import label_service_pb2 as pb, label_service_pb2_grpc
image = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
for codec in (pb.CODEC_RAW, pb.CODEC_ZSTD):
    sent = pb.StreamSamplesResponse(
        batch=pb.SampleBatch(indices=[2**64 - 1], tensors=[tensor_from_array(image, pb.OUTPUT_IMAGE, codec)]),
        next_index=7,
    )
    got = pb.StreamSamplesResponse.FromString(sent.SerializeToString())
    assert got == sent
    assert (array_from_tensor(got.batch.tensors[0]) == image).all()
assert not pb.SamplingOptions().HasField("truncation_psi")
assert abs(latents(0, 0, [0], 4)[0, 0] - 0.9911377) < 1e-6
Client("localhost:1").close()
print("fine")
"""  # noqa: E501


def test_stubs_do_not_demand_their_generators_own_runtime() -> None:
    messages = (GENERATED / "label_service_pb2.py").read_text()
    services = (GENERATED / "label_service_pb2_grpc.py").read_text()
    assert "runtime_version" not in messages
    assert "GRPC_GENERATED_VERSION" not in services


def test_round_trip_under_the_newest_runtime() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", ROUND_TRIP], capture_output=True, text=True
    )
    assert (run.stdout, run.stderr) == ("fine\n", "")


@pytest.mark.slow
def test_round_trip_under_the_oldest_declared_runtime(tmp_path: Path) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    oldest = [re.sub(">=([0-9.]+)$", r"~=\1.0", need) for need in project["dependencies"]]
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    python = tmp_path / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *oldest], check=True)
    run = subprocess.run([python, "-c", ROUND_TRIP], cwd=CHECKOUT, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("fine\n", "")

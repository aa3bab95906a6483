"""Triton's client, as it comes from PyPI, finds a server that it knows how to talk to."""

import hashlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmint.v1 import label_service_pb2 as pb
from service.config import Config, NamedBundle
from service.loading import open_models
from tests.hangs import HANG_S
from tests.service.harness import RunningServer, served_by
from tests.service.test_inference import generated
from tests.service.test_process import bundle_at

SCRIPT = Path(__file__).with_name("triton_script.py")
TOKEN = "a" * 20


def digests(arrays: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in arrays.items()}


def expected_of_z(server: RunningServer) -> dict[str, str]:
    z = np.linspace(-1, 1, 32, dtype=np.float32)
    rows = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[2, 16], data=z.tobytes())
    latents = pb.ExplicitLatents(space=pb.LATENT_SPACE_Z, rows=rows)
    return digests(generated(server, latents=latents, outputs=[pb.OUTPUT_MASK, pb.OUTPUT_W]))


@pytest.mark.skipif(find_spec("tritonclient") is None, reason="tritonclient is not installed")
def test_stock_triton_client_works_unchanged(tmp_path: Path) -> None:
    admins = tmp_path / "admins"
    admins.write_text(f"ops {TOKEN}\n")
    bundles = (NamedBundle("m", bundle_at(tmp_path / "m")),)
    config = Config(bundles, "127.0.0.1:0", runtime="fake", admin_token_file=admins)
    with served_by(config, lambda metrics: open_models(config, metrics)) as server:
        seven = pb.SamplingOptions(seed=7)
        half = pb.SamplingOptions(seed=7, truncation_psi=0.5)
        result = subprocess.run(
            [sys.executable, str(SCRIPT), f"127.0.0.1:{server.server.port}", "m", TOKEN],
            capture_output=True, text=True, timeout=HANG_S, cwd=tmp_path,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        seen: dict[str, Any] = json.loads(result.stdout)
        assert seen["infer"] == digests(generated(server, indices=[3, 4, 5], sampling=half))
        assert seen["z"] == expected_of_z(server)
        for number, (identity, samples) in enumerate(seen["stream"][:12]):
            assert identity == str(number)
            assert samples == digests(generated(server, indices=[number], sampling=seven))
    assert seen["stream"][12][0].startswith("NOT_FOUND")
    assert seen["live"] and seen["ready"] and seen["model_ready"] and not seen["unknown_ready"]
    assert (seen["server"], seen["config"]) == ("labelmint", "labelmint")
    assert seen["outputs"] == [
        "image", "mask", "keypoints", "depth", "uncertainty", "uncertainty_map", "ws",
    ]  # fmt: skip
    assert seen["unknown"].startswith("StatusCode.NOT_FOUND")
    assert seen["shape"].startswith("StatusCode.INVALID_ARGUMENT: z has shape [2, 5]")
    assert seen["trace"].startswith("StatusCode.UNIMPLEMENTED")
    assert seen["denied"].startswith("StatusCode.PERMISSION_DENIED")
    assert seen["inferences"] == 3 + 2 + 12
    assert (seen["unloaded"], seen["loaded"]) == (["UNAVAILABLE"], ["READY"])

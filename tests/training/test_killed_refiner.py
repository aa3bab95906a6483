"""A refiner's training goes on where it was killed, while its pool is filled too."""

import random
import re
from pathlib import Path

import pytest

from checkpoints import tensors_from_file
from tests.training.killed import ended, files, killed, written
from tests.training.test_fit_refiner import REAL, write_images
from training.resume import state_path


@pytest.mark.slow
@pytest.mark.parametrize("filling", [True, False])
def test_kill_9_changes_no_byte(
    tiny_weights: tuple[Path, Path], tmp_path: Path, filling: bool
) -> None:
    warm_up, steps = (60, 2) if filling else (2, 60)
    write_images(tmp_path / "real", REAL.images)
    command = [
        "refiner", "--source", str(tiny_weights[0]), "--real", str(tmp_path / "real"), "--pool",
        "400", "--warm-up", str(warm_up), "--critic-warm-up", "0", "--steps", str(steps),
        "--batch", "2", "--history", "2", "--every", "4", "--max-shift", "99",
        "--min-structure", "-1", "--resume", "--out",
    ]  # fmt: skip
    out, whole = (tmp_path / name / "r.safetensors" for name in ("killed", "whole"))
    state, choice = state_path(out), random.Random(0)
    kills = [killed([*command, str(out)], lambda: written(state), choice) for _ in range(2)]
    assert all(kills), "the kills came too late to show anything"
    at = int(tensors_from_file(state)["step"])
    assert (at < warm_up) == filling
    left = state.with_name(f".{state.name}.99999")  # by a kill in the middle of a writing
    left.write_bytes(b"half a state")
    said = ended([*command, str(out)])
    assert re.findall(r"refiner: .* (\d+)/62", said)[0] == str(at)  # where the bar starts
    left.unlink()
    ended([*command, str(whole)])
    assert files(out.parent) == files(whole.parent)

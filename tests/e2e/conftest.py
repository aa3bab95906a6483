"""The demo's own bundle, built once the way `make demo` builds it."""

from pathlib import Path

import pytest

from checkpoints import generator_from_file
from examples.demo.__main__ import GENERATOR
from examples.demo.labels import write_examples
from export.__main__ import main as export_command
from training.__main__ import main as training_command

CALIBRATION_SAMPLES = 4096  # as the demo: fewer would not hold keep_fraction to its bounds


@pytest.fixture(scope="session")
def demo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the committed generator and an ensemble trained on 16 rendered labels."""
    folder = tmp_path_factory.mktemp("demo")
    generator, _ = generator_from_file(GENERATOR)
    write_examples(generator, folder / "labels")
    interpreter, out = folder / "interpreter.safetensors", folder / "bundle"
    training_command(
        [
            "interpreter",
            "--generator",
            str(GENERATOR),
            "--labels",
            str(folder / "labels"),
            "--out",
            str(interpreter),
        ],
        standalone_mode=False,
    )
    export_command(
        [
            "bundle",
            "--generator",
            str(GENERATOR),
            "--interpreter",
            str(interpreter),
            "--out",
            str(out),
            "--calibrate",
            str(CALIBRATION_SAMPLES),
        ],
        standalone_mode=False,
    )
    return out

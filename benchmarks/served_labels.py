"""Labels of many latents as a server computes them: weights -> a bundle -> ONNX Runtime."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import trange

from bundle.open import open_bundle
from checkpoints import InterpreterCard, write_interpreter
from engines.open import EngineOptions, open_engine
from export.__main__ import main as export_command
from nets.interpreter import Interpreter
from training.interpreter.predict import Prediction

BATCH = 8


def served_predictions(
    generator: Path, interpreter: Interpreter, card: InterpreterCard, ws: NDArray[np.float32]
) -> list[Prediction]:
    """Labels of w+ [n, num_ws, w_dim], in order, by a temporary bundle."""
    with TemporaryDirectory() as folder:
        weights, out = Path(folder, "interpreter.safetensors"), Path(folder, "bundle")
        write_interpreter(weights, interpreter, card)
        export_command(
            [
                "bundle", "--generator", str(generator), "--interpreter", str(weights), "--out",
                str(out), "--parity-samples", "2", "--no-half", "--batch", str(BATCH),
            ],
            standalone_mode=False,
        )  # fmt: skip
        engine = open_engine(open_bundle(out), EngineOptions(batch_sizes=(BATCH,)))
        wanted = tuple(o for o in engine.outputs if o != "image")
        found: list[Prediction] = []
        keep_all = np.full(BATCH, np.inf, np.float32)
        for start in trange(0, len(ws), BATCH, desc="labels", unit="batch"):
            rows = ws[start : start + BATCH]
            arrays = engine.run(rows, keep_all[: len(rows)], wanted).arrays
            found += [prediction_from_row(arrays, i) for i in range(len(rows))]
        engine.close()
    return found


def prediction_from_row(arrays: dict[str, NDArray[Any]], i: int) -> Prediction:
    """Labels of sample i of an engine's outputs."""
    return Prediction(
        mask=arrays["mask"][i] if "mask" in arrays else None,
        keypoints=arrays["keypoints"][i] if "keypoints" in arrays else None,
        depth=arrays["depth"][i].astype(np.float32) if "depth" in arrays else None,
        uncertainty=float(arrays["uncertainty"][i]),
        uncertainty_map=arrays["uncertainty_map"][i].astype(np.float32),
    )

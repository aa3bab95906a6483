"""The fake engine is a stand-in for a real one: same contract, no device."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bundle.calibration import calibration_for, threshold_for
from bundle.check import check_manifest
from engines import EngineOptions, default_options, open_engine, open_mapping, ws_from_indices
from engines.errors import EngineRunError, NotFiniteError
from engines.fake import FakeEngine, FakeOptions, fake_bundle
from engines.sampling import key_from_options
from engines.signature import labeller_outputs

BUNDLE = fake_bundle()
FAKE = EngineOptions(runtime="fake")
GENERATOR = BUNDLE.manifest.generator


def draw(n: int) -> Any:
    mapping = open_mapping(BUNDLE, FAKE)
    return ws_from_indices(mapping, GENERATOR, default_options(GENERATOR), range(n))


def limits(n: int, limit: float = np.inf) -> Any:
    return np.full(n, limit, np.float32)


@pytest.mark.parametrize("resolution", [8, 64])
@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_its_bundles_are_valid(resolution: int, heads: bool, num_classes: int) -> None:
    manifest = fake_bundle(resolution, num_classes, heads, view_layers=2).manifest
    check_manifest(manifest, "manifest.json")


def test_arrays_have_the_manifests_types_and_extents() -> None:
    engine = open_engine(BUNDLE, FAKE)
    result = engine.run(draw(5), limits(5), engine.outputs)
    for name, spec in labeller_outputs(BUNDLE.manifest).items():
        assert result.arrays[name].dtype == spec.dtype
        assert result.arrays[name].shape == (5, *spec.extents)
    assert result.arrays["mask"].max() < 4


def test_a_sample_is_the_same_in_every_batch_and_engine() -> None:
    ws = draw(8)
    whole = open_engine(BUNDLE, FAKE).run(ws, limits(8), ("image", "uncertainty"))
    other = open_engine(BUNDLE, FAKE)
    for i in range(8):
        alone = other.run(ws[i : i + 1], limits(1), ("image", "uncertainty"))
        for name, array in alone.arrays.items():
            assert array.tobytes() == whole.arrays[name][i : i + 1].tobytes()


def test_samples_differ() -> None:
    images = open_engine(BUNDLE, FAKE).run(draw(8), limits(8), ("image",)).arrays["image"]
    assert len({image.tobytes() for image in images}) > 4


def test_its_calibration_is_true() -> None:
    key = key_from_options(default_options(GENERATOR))
    threshold = threshold_for(calibration_for(BUNDLE.manifest, key, BUNDLE.path), 0.75)
    engine = FakeEngine(BUNDLE.manifest, batch_sizes=(1024,))
    kept = len(engine.run(draw(1024), limits(1024, threshold), ()).sample)
    assert abs(kept / 1024 - 0.75) < 0.05


def test_it_takes_the_time_it_is_told() -> None:
    engine = FakeEngine(BUNDLE.manifest, FakeOptions(0.01, 0.005), batch_sizes=(2, 4))
    started = time.monotonic()
    engine.run(draw(3), limits(3), ())
    assert time.monotonic() - started >= 0.01 + 4 * 0.005


def test_it_fails_when_it_is_told() -> None:
    engine = FakeEngine(BUNDLE.manifest, FakeOptions(fail_after_runs=1))
    engine.run(draw(1), limits(1), ())
    with pytest.raises(EngineRunError, match="as configured"):
        engine.run(draw(1), limits(1), ())
    with pytest.raises(NotFiniteError):
        FakeEngine(BUNDLE.manifest, FakeOptions(not_finite_share=1)).run(draw(1), limits(1), ())


def test_it_refuses_what_a_real_engine_refuses() -> None:
    engine = open_engine(BUNDLE, replace(FAKE, batch_sizes=(2,)))
    with pytest.raises(EngineRunError, match="ws has 3 rows; a run takes 1 to 2"):
        engine.run(draw(3), limits(3), ())
    with pytest.raises(EngineRunError, match="outputs has normals"):
        engine.run(draw(1), limits(1), ("normals",))
    engine.close()
    with pytest.raises(EngineRunError, match="closed"):
        engine.run(draw(1), limits(1), ())

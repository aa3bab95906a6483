"""Samples without a service have the bits of those that a server streams."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.errors import NotCalibrated
from engines.errors import BundleLacks, EngineRunError, SamplingError
from engines.fake import FakeOptions
from engines.open import EngineOptions
from engines.samples import BundleSamples
from labelmint import Client
from tests.service.test_process import bundle_at
from tests.service.test_real_engine import serving

END = 26
MEDIAN = -1.0  # in place of the median score
FAKE = EngineOptions(runtime="fake")
OPTIONS: list[dict[str, Any]] = [
    {"seed": 7, "truncation_psi": 0.5},
    {"keep_fraction": 0.6, "outputs": ["w", "mask", "uncertainty"]},
    {"latent_source": "mt19937", "seed": 5, "outputs": ["image", "uncertainty_map"]},
    {"views_per_object": 2, "filter_sets": True, "max_uncertainty": MEDIAN},
    {"where": "not (0.1 < uncertainty < 0.3)", "max_class_uncertainty": {"class 0": 0.9}},
    {"balance": MEDIAN, "outputs": ["mask", "weight"]},
]


@pytest.fixture(scope="module")
def target(tiny_bundle: Path) -> Iterator[str]:
    with serving(tiny_bundle) as server:
        yield f"127.0.0.1:{server.server.port}"


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    return bundle_at(tmp_path / "fake")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_samples_have_the_bits_of_the_stream(
    tiny_bundle: Path, target: str, options: dict[str, Any]
) -> None:
    with Client(target) as client:
        if options.get("max_uncertainty") == MEDIAN:
            scores = client.generate(end_index=END, views_per_object=2, outputs=["uncertainty"])
            assert scores.uncertainty is not None
            options = {**options, "max_uncertainty": float(np.median(scores.uncertainty))}
        if options.get("balance") == MEDIAN:
            middle = client.model(keep_fraction=0.5).max_uncertainty
            options = {**options, "balance": {f"uncertainty > {middle!r}": 0.8}}
        batches = list(client.stream(5, end_index=END, **options))
        pinned: Any = client.pin(**options)
    samples = BundleSamples(tiny_bundle, pinned, EngineOptions(threads=2), verify=False)
    # In parts that cut objects, and the second part first.
    ranges = [range(7, END), range(7)]
    found = [samples.of_indices(list(part)) for part in ranges][::-1]
    wanted = [batch.columns() for batch in batches]
    assert all(list(part) == list(wanted[0]) for part in found)
    for name in wanted[0]:
        array = np.concatenate([part[name] for part in found])
        expected = np.concatenate([part[name] for part in wanted])
        assert array.dtype == expected.dtype and np.array_equal(array, expected), name
    filtered = options.keys() & {"keep_fraction", "max_uncertainty", "balance"}
    kept = sum(len(part["index"]) for part in found)
    assert 2 <= kept < END if filtered else kept == END
    samples.close()


def test_rows_are_in_the_order_of_the_indices_and_as_often(fake: Path) -> None:
    samples = BundleSamples(fake, {"max_uncertainty": 0.5}, FAKE, verify=False)
    whole = samples.of_indices(range(40))
    kept = whole["index"].tolist()
    assert 5 < len(kept) < 35
    asked = [kept[3], *(i for i in range(40) if i not in kept), kept[0], kept[3], kept[-1]]
    found = samples.of_indices(asked)
    assert found["index"].tolist() == [kept[3], kept[0], kept[3], kept[-1]]
    assert np.array_equal(found["image"], whole["image"][[3, 0, 3, -1]])
    nothing = samples.of_indices([])
    assert {name: array.shape[1:] for name, array in nothing.items()} == {
        name: array.shape[1:] for name, array in whole.items()
    }


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"end_index": 9}, ValueError, "option 'end_index' is of streams alone"),
        ({"sed": 9}, TypeError, "did you mean seed"),
        ({"bundle_id": "sha256:other"}, SamplingError, "bundle_id is sha256:other, .* has sha256:"),
        ({"truncation_psi": 3.0}, SamplingError, r"truncation_psi is 3.0; it must be in \[0, 2\]"),
        ({"view": 1}, BundleLacks, "this bundle has no view bank"),
        ({"outputs": ["view"]}, BundleLacks, "outputs has view, which this bundle lacks"),
        ({"keep_fraction": 0.5, "truncation_psi": 0.1}, NotCalibrated, "export calibrate"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    fake: Path, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        BundleSamples(fake, options, FAKE, verify=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("output", ["uncertainty", "content"])
def test_what_is_not_finite_is_named_with_its_index(fake: Path, output: str) -> None:
    faulty = FakeOptions(not_finite_share=0.2, not_finite_output=output)
    samples = BundleSamples(fake, {}, EngineOptions(runtime="fake", fake=faulty), verify=False)
    with pytest.raises(EngineRunError, match=rf"the {output} of index \d+ is not finite"):
        samples.of_indices(range(100, 140))
    with pytest.raises(SamplingError, match="index is 18446744073709551615; it must be under"):
        samples.of_indices([2**64 - 1])
    with pytest.raises(ValueError, match="give integers"):
        samples.of_indices(np.zeros(3))

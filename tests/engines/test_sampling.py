"""Sample i is a function of the bundle, the options and i: never of its batch."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bundle.manifest import GeneratorFacts
from engines import default_options, ws_from_indices, ws_from_latents
from engines.errors import SamplingError
from engines.fake import FakeMapping, fake_bundle
from engines.sampling import LatentSpace, SamplingOptions, check_options, key_from_options
from labelmint.latents import Mt19937Rows, Purpose, classes, latents

PLAIN = fake_bundle().manifest.generator
AVERAGE = [0.25 + i / 64 for i in range(PLAIN.w_dim)]
GENERATOR = msgspec.structs.replace(PLAIN, w_avg=AVERAGE, num_classes=5)
UNCONDITIONAL = msgspec.structs.replace(GENERATOR, num_classes=0)
OPTIONS = replace(default_options(GENERATOR, seed=7), truncation_psi=0.5, truncation_cutoff=6)


def draw(
    options: SamplingOptions, *indices: int, g: GeneratorFacts = GENERATOR
) -> NDArray[np.float32]:
    return ws_from_indices(FakeMapping(g), g, options, np.array(indices, np.uint64))


def expected_w(
    options: SamplingOptions, purpose: Purpose, index: int, label: int
) -> NDArray[np.float32]:
    """Untruncated w of one code, by FakeMapping's definition."""
    w: NDArray[np.float32] = latents(options.seed, purpose, [index], GENERATOR.z_dim)[0]
    return w + np.float32(label)


def truncated(w: NDArray[np.float32], psi: float) -> NDArray[np.float32]:
    average = np.array(AVERAGE, np.float32)
    return average + np.float32(psi) * (w - average)


def test_rows_up_to_the_cutoff_are_truncated_and_no_others() -> None:
    label = int(classes(7, [11], 5)[0])
    w = expected_w(OPTIONS, Purpose.OBJECT, 11, label)
    ws = draw(OPTIONS, 11)[0]
    assert ws.shape == (GENERATOR.num_ws, GENERATOR.w_dim)
    assert (ws[:6] == truncated(w, 0.5)).all() and (ws[6:] == w).all()


def test_psi_1_leaves_w_as_it_is() -> None:
    options = replace(OPTIONS, truncation_psi=1.0, class_index=0)
    assert (draw(options, 3)[0] == expected_w(options, Purpose.OBJECT, 3, 0)).all()


def test_psi_0_is_the_mean_whatever_the_index() -> None:
    options = replace(OPTIONS, truncation_psi=0.0, truncation_cutoff=GENERATOR.num_ws)
    assert (draw(options, 3, 4) == np.array(AVERAGE, np.float32)).all()


def test_views_share_the_object_and_objects_share_the_view_codes() -> None:
    options = replace(OPTIONS, views_per_object=3, class_index=2)
    g = GENERATOR.view_layers
    ws = draw(options, 12, 13, 14, 15)  # object 4 in views 0 to 2, object 5 in view 0
    assert (ws[0, g:] == ws[1, g:]).all() and (ws[0, g:] == ws[2, g:]).all()
    assert (ws[0, g:] != ws[3, g:]).any()
    assert (ws[0, :g] == ws[3, :g]).all() and (ws[0, :g] != ws[1, :g]).any()
    view = expected_w(options, Purpose.VIEW, 1, 2)
    assert (ws[1, :g] == truncated(view, 0.5)).all()
    assert (ws[1, g + 2 :] == expected_w(options, Purpose.OBJECT, 4, 2)).all()


def test_a_drawn_class_is_the_objects_in_all_of_its_views() -> None:
    options = replace(OPTIONS, views_per_object=2, truncation_psi=1.0)
    label = int(classes(7, [9], 5)[0])
    ws = draw(options, 18, 19)
    for view in (0, 1):
        assert (ws[view, 0] == expected_w(options, Purpose.VIEW, view, label)).all()
        assert (ws[view, -1] == expected_w(options, Purpose.OBJECT, 9, label)).all()


def test_a_fixed_class_is_used() -> None:
    options = replace(OPTIONS, class_index=4, truncation_psi=1.0)
    assert (draw(options, 1)[0] == expected_w(options, Purpose.OBJECT, 1, 4)).all()


def test_one_view_is_no_mixing() -> None:
    one = replace(OPTIONS, views_per_object=1, truncation_psi=1.0)
    ws = draw(one, 21)[0]
    assert (ws == ws[0]).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    st.integers(1, 4),
    st.data(),
)
def test_a_sample_does_not_depend_on_its_batch(
    indices: list[int], views: int, data: st.DataObject
) -> None:
    options = replace(OPTIONS, views_per_object=views)
    whole = draw(options, *indices)
    at = data.draw(st.integers(0, len(indices) - 1))
    assert draw(options, indices[at])[0].tobytes() == whole[at].tobytes()


def test_no_indices_give_no_rows() -> None:
    assert draw(OPTIONS).shape == (0, GENERATOR.num_ws, GENERATOR.w_dim)


def test_mt19937_is_the_research_codes_order() -> None:
    options = SamplingOptions(5, "mt19937", 1.0, 0, None, 1)
    state = np.random.RandomState(5)
    expected = [state.randn(1, 16).astype(np.float32)[0] for _ in range(4)]
    ws = draw(options, 0, 3, g=UNCONDITIONAL)
    assert (ws[0, 0] == expected[0]).all() and (ws[1, 0] == expected[3]).all()


def test_mt19937_goes_on_from_a_streams_position() -> None:
    options = SamplingOptions(5, "mt19937", 1.0, 0, None, 1)
    position, mapping = Mt19937Rows(5, 16), FakeMapping(UNCONDITIONAL)
    whole = draw(options, *range(6), g=UNCONDITIONAL)
    for start in (0, 2, 4):
        index = np.arange(start, start + 2, dtype=np.uint64)
        part = ws_from_indices(mapping, UNCONDITIONAL, options, index, position)
        assert (part == whole[start : start + 2]).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"latent_source": "dice"}, "latent_source is 'dice'"),
        ({"latent_source": "mt19937", "seed": 2**32}, "under 2^32"),
        ({"latent_source": "mt19937", "views_per_object": 2}, "no views"),
        ({"truncation_psi": 2.1}, "truncation_psi is 2.1"),
        ({"truncation_psi": float("nan")}, "truncation_psi is nan"),
        ({"truncation_cutoff": 11}, "truncation_cutoff is 11"),
        ({"truncation_cutoff": -1}, "truncation_cutoff is -1"),
        ({"class_index": 5}, "class_index is 5"),
        ({"class_index": -1}, "class_index is -1"),
        ({"views_per_object": 0}, "views_per_object is 0"),
        ({"views_per_object": 65537}, "views_per_object is 65537"),
    ],
)
def test_options_out_of_range_are_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(SamplingError) as caught:
        check_options(GENERATOR, replace(OPTIONS, **change))  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_a_class_is_refused_where_there_are_none() -> None:
    with pytest.raises(SamplingError, match="no classes"):
        check_options(UNCONDITIONAL, replace(OPTIONS, class_index=0))


def test_views_are_refused_where_the_view_rows_are_unknown() -> None:
    flat = msgspec.structs.replace(GENERATOR, view_layers=0)
    with pytest.raises(SamplingError, match="view_layers is 0"):
        check_options(flat, replace(OPTIONS, views_per_object=2))


def test_mt19937_indices_end_at_a_million() -> None:
    options = SamplingOptions(5, "mt19937", 1.0, 0, None, 1)
    with pytest.raises(SamplingError, match="under 1000000"):
        draw(options, 1_000_000, g=UNCONDITIONAL)


def given_rows(
    space: LatentSpace, rows: NDArray[np.float32], first: int = 0
) -> NDArray[np.float32]:
    return ws_from_latents(FakeMapping(GENERATOR), GENERATOR, OPTIONS, space, rows, first)


def test_given_z_is_mapped_and_truncated_as_drawn_z_is() -> None:
    z = latents(7, Purpose.OBJECT, np.arange(20, 23), 16)
    assert given_rows("z", z, first=20).tobytes() == draw(OPTIONS, 20, 21, 22).tobytes()


def test_given_w_fills_every_row_untruncated() -> None:
    w = np.arange(32, dtype=np.float32).reshape(2, 16)
    ws = given_rows("w", w)
    assert ws.shape == (2, GENERATOR.num_ws, 16) and (ws == w[:, None]).all()


def test_given_w_plus_is_used_as_it_is() -> None:
    ws = np.random.default_rng(0).normal(size=(3, GENERATOR.num_ws, 16)).astype(np.float32)
    assert (given_rows("w+", ws) == ws).all()


@pytest.mark.parametrize(
    ("space", "shape"), [("z", (2, 15)), ("w", (2, 10, 16)), ("w+", (2, 16)), ("w+", (2, 9, 16))]
)
def test_latents_of_another_shape_are_refused(space: LatentSpace, shape: tuple[int, ...]) -> None:
    with pytest.raises(SamplingError, match="latents have shape"):
        given_rows(space, np.zeros(shape, np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_latents_that_are_not_finite_are_named_by_row(bad: float) -> None:
    rows = np.zeros((4, 16), np.float32)
    rows[2, 5] = bad
    with pytest.raises(SamplingError, match="latent row 12 "):
        given_rows("z", rows, first=10)


def test_given_latents_have_no_views() -> None:
    options = replace(OPTIONS, views_per_object=2)
    with pytest.raises(SamplingError, match="with explicit latents it must be 1"):
        ws_from_latents(
            FakeMapping(GENERATOR), GENERATOR, options, "w", np.zeros((1, 16), np.float32)
        )


def test_no_truncation_has_one_key() -> None:
    keys = {
        key_from_options(replace(OPTIONS, truncation_psi=psi, truncation_cutoff=cutoff)).__repr__()
        for psi, cutoff in ((1.0, 0), (1.0, 10), (0.5, 0))
    }
    assert len(keys) == 1


def test_a_key_is_the_same_from_the_wires_float32_and_from_text() -> None:
    wire = replace(OPTIONS, truncation_psi=float(np.float32(0.7)))
    assert key_from_options(wire) == key_from_options(replace(OPTIONS, truncation_psi=0.7))
    assert key_from_options(wire).truncation_psi == 0.7


def test_a_key_leaves_out_the_seed() -> None:
    assert key_from_options(OPTIONS) == key_from_options(replace(OPTIONS, seed=9))

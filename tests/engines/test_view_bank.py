"""Views of the bank: which code a sample has, and that the code is taken as it is."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines import default_options, ws_from_indices, ws_from_latents
from engines.errors import SamplingError
from engines.fake import FakeMapping, fake_bundle
from engines.sampling import (
    OWN_VIEW,
    LatentOptions,
    LatentSpace,
    check_options,
    default_view_mode,
    key_from_options,
    view_numbers,
)
from labelmint.latents import views

BUNDLE = fake_bundle(resolution=16, view_codes=5)
G, BANK = BUNDLE.manifest.generator, BUNDLE.views
assert BANK is not None
PLAIN = default_options(G, seed=7)
HALF = replace(PLAIN, truncation_psi=0.5, truncation_cutoff=G.num_ws)
ALL = replace(HALF, view_mode="bank", views_per_object=3)
FIXED = replace(HALF, view_mode="fixed", view=4)
RANDOM = replace(HALF, view_mode="random")


def draw(options: LatentOptions, *indices: int) -> NDArray[np.float32]:
    return ws_from_indices(
        FakeMapping(G), G, options, np.array(indices, np.uint64), bank=BUNDLE.views
    )


def test_view_v_of_an_object_is_code_v_as_it_is_and_the_rest_is_the_object() -> None:
    assert BANK is not None
    ws, own = draw(ALL, *range(6)), draw(HALF, 0, 1)
    assert (ws[:, : G.view_layers] == np.concatenate([BANK.codes[:3]] * 2)).all()
    assert (ws[:, G.view_layers :] == np.repeat(own, 3, axis=0)[:, G.view_layers :]).all()


def test_a_fixed_view_is_the_same_for_all_objects_which_stay_what_they_are() -> None:
    assert BANK is not None
    ws, own = draw(FIXED, 0, 5, 2**40), draw(HALF, 0, 5, 2**40)
    assert (ws[:, : G.view_layers] == BANK.codes[4]).all()
    assert (ws[:, G.view_layers :] == own[:, G.view_layers :]).all()
    assert (own[:, : G.view_layers] != BANK.codes[4]).all()


@given(st.lists(st.integers(0, 2**64 - 2), min_size=1, max_size=9), st.integers(0, 2**64 - 1))
def test_a_random_view_is_a_function_of_seed_and_index(indices: list[int], seed: int) -> None:
    options = replace(RANDOM, seed=seed)
    together = draw(options, *indices)
    alone = np.concatenate([draw(options, index) for index in indices])
    assert together.tobytes() == alone.tobytes()
    numbers = view_numbers(options, np.array(indices, np.uint64), BANK)
    assert numbers.tolist() == views(seed, indices, 5).tolist()
    other = replace(options, truncation_psi=1.0, truncation_cutoff=0)
    assert (draw(other, *indices)[:, : G.view_layers] == together[:, : G.view_layers]).all()


def test_random_views_are_uniform_and_differ_between_seeds() -> None:
    drawn = views(3, range(50_000), 5)
    counts = np.bincount(drawn, minlength=5)
    assert len(counts) == 5 and abs(counts - 10_000).max() < 450  # five standard deviations
    assert 0.15 < (drawn == views(4, range(50_000), 5)).mean() < 0.25


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (PLAIN, [OWN_VIEW] * 4),
        (replace(PLAIN, views_per_object=3), [2, 0, 1, 2]),
        (ALL, [2, 0, 1, 2]),
        (FIXED, [4, 4, 4, 4]),
    ],
)
def test_numbers_say_which_view_a_sample_is(options: LatentOptions, numbers: list[int]) -> None:
    assert view_numbers(options, np.arange(2, 6, dtype=np.uint64), BANK).tolist() == numbers


def test_several_views_are_the_banks_unless_drawn_ones_are_asked_for() -> None:
    assert default_view_mode(2, BANK) == "bank" and default_view_mode(2, None) == "drawn"
    assert default_view_mode(1, BANK) == "drawn"
    drawn = replace(ALL, view_mode="drawn")
    bare = fake_bundle(resolution=16).manifest.generator
    expected = ws_from_indices(FakeMapping(bare), bare, drawn, range(6))
    assert (draw(drawn, *range(6)) == expected).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"view_mode": "fixed", "view": 5}, "view is 5; the view bank has 5"),
        ({"view_mode": "fixed", "view": -1}, "view is -1"),
        ({"view_mode": "fixed"}, "view is None with view_mode fixed"),
        (
            {"view_mode": "bank", "view": 1, "views_per_object": 2},
            "if and only if view_mode is fixed",
        ),
        ({"view_mode": "bank"}, r"views_per_object is 1 .* in \[2, 5\]"),
        ({"view_mode": "bank", "views_per_object": 6}, r"is 6 .* in \[2, 5\]"),
        ({"view_mode": "random", "views_per_object": 2}, "with view random .* must be 1"),
        ({"view_mode": "fixed", "view": 0, "views_per_object": 2}, "with view 0 .* must be 1"),
        ({"view_mode": "spin"}, "view_mode is 'spin'"),
    ],
)
def test_views_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SamplingError, match=message):
        check_options(G, replace(PLAIN, **change), BANK)


@pytest.mark.parametrize("options", [ALL, FIXED, RANDOM])
def test_without_a_bank_its_views_are_refused(options: LatentOptions) -> None:
    spelled = options.view_mode if options.view is None else options.view
    with pytest.raises(SamplingError, match=f"view is {spelled}; this bundle has no view bank"):
        check_options(G, options)


@pytest.mark.parametrize("space", ["z", "w", "w+"])
@pytest.mark.parametrize("options", [FIXED, RANDOM])
def test_given_latents_seen_from_the_bank_are_the_same_object(
    options: LatentOptions, space: LatentSpace
) -> None:
    assert BANK is not None
    shape = {"z": (9, G.z_dim), "w": (9, G.w_dim), "w+": (9, G.num_ws, G.w_dim)}[space]
    rows = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    rows.flags.writeable = False  # as they come off the wire
    own = ws_from_latents(FakeMapping(G), G, HALF, space, rows, 20)
    ws = ws_from_latents(FakeMapping(G), G, options, space, rows, 20, BANK)
    codes = view_numbers(options, np.arange(20, 29, dtype=np.uint64), BANK)
    assert (ws[:, : G.view_layers] == BANK.codes[codes]).all()
    assert (ws[:, G.view_layers :] == own[:, G.view_layers :]).all()
    assert (own[:, : G.view_layers] != ws[:, : G.view_layers]).any()


def test_every_way_to_choose_views_has_a_calibration_of_its_own() -> None:
    others = [
        replace(FIXED, view=0),
        replace(ALL, view_mode="drawn"),
        replace(ALL, views_per_object=2),
    ]
    keys = [key_from_options(options) for options in (HALF, ALL, FIXED, RANDOM, *others)]
    assert all(keys.count(key) == 1 for key in keys)

"""Latents: anyone can recompute them, and they never change."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmint.latents import (
    Mt19937Rows,
    Purpose,
    classes,
    latents,
    latents_mt19937,
    normals_from_words,
    philox4x32,
    random_words,
)

SEEDS = st.integers(0, 2**64 - 1)
INDICES = st.lists(st.integers(0, 2**64 - 1), max_size=5)

# Known answers published with Random123 (kat_vectors, philox4x32 10).
KNOWN_ANSWERS = (
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
)  # fmt: skip


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(counter: str, key: str, answer: str) -> None:
    low, high = words(key)
    got = philox4x32(np.array(words(counter), np.uint64), (low, high))
    assert got.dtype == np.uint32
    assert got.tolist() == words(answer)


def test_counter_is_block_purpose_index_and_key_is_seed() -> None:
    seed, index = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    for block in (0, 1, 5):
        counter = np.array([block, Purpose.NOISE, 0x76543210, 0xFEDCBA98], np.uint64)
        row = random_words(seed, Purpose.NOISE, np.array([index], np.uint64), 6)[0]
        expected = philox4x32(counter, (0x89ABCDEF, 0x01234567))
        assert row[4 * block : 4 * block + 4].tolist() == expected.tolist()


# Computed with 40 digits from the words by the formula in the module's head, then rounded.
GOLDEN_NORMALS = (
    (0, Purpose.OBJECT, 0,
     (0.9911377, -0.9246626, -0.61760896, -0.4820686, -0.15363823, 0.1808259)),
    (7, Purpose.OBJECT, 1000,
     (0.37895766, -1.1998408, 0.23637064, -0.34288996, -0.5549076, 0.22035263)),
    (2**64 - 1, Purpose.VIEW, 2**64 - 1,
     (-0.14448732, -0.29337764, -0.321046, -0.15418719, -0.52752316, -0.15366657)),
    (12345678901234567, Purpose.NOISE, 2**32,
     (-1.0697932, 0.8857016, 0.4182428, -0.11312642, -1.6528608, 0.7220607)),
)  # fmt: skip


@pytest.mark.parametrize(("seed", "purpose", "index", "row"), GOLDEN_NORMALS)
def test_normals_are_golden_within_one_ulp(
    seed: int, purpose: int, index: int, row: tuple[float, ...]
) -> None:
    got = latents(seed, purpose, [index], len(row))
    assert got.dtype == np.float32
    np.testing.assert_array_max_ulp(got[0], np.array(row, np.float32), maxulp=1)


@given(SEEDS, INDICES, st.integers(1, 600))
def test_a_row_depends_on_its_own_index_only(seed: int, indices: list[int], dim: int) -> None:
    together = latents(seed, Purpose.OBJECT, indices, dim)
    assert together.shape == (len(indices), dim)
    for index, row in zip(indices, together, strict=True):
        assert latents(seed, Purpose.OBJECT, [index], dim + 3)[0, :dim].tobytes() == row.tobytes()


def test_many_rows_equal_single_rows_across_chunks() -> None:
    indices = np.arange(300, dtype=np.uint64) * np.uint64(2**55 + 1)
    rows = latents(5, Purpose.VIEW, indices, 512)  # more than one chunk
    for number in (0, 127, 128, 299):
        assert (latents(5, Purpose.VIEW, indices[number : number + 1], 512) == rows[number]).all()


def test_normals_are_standard_and_purposes_and_seeds_differ() -> None:
    rows = latents(3, Purpose.OBJECT, np.arange(400), 512).astype(np.float64)
    assert abs(rows.mean()) < 0.01
    assert abs(rows.std() - 1) < 0.01
    assert abs((rows**4).mean() - 3) < 0.1
    others = [latents(3, purpose, [1], 512) for purpose in Purpose if purpose]
    others.append(latents(4, Purpose.OBJECT, [1], 512))
    for other in others:
        assert abs(np.corrcoef(rows[1], other[0])[0, 1]) < 0.2


def test_normals_are_finite_at_the_extreme_words() -> None:
    extremes = np.array([[0, 0, 0, 2**32 - 1, 2**32 - 1, 0, 2**32 - 1, 2**32 - 1]], np.uint32)
    normals = normals_from_words(extremes)
    assert np.isfinite(normals).all()
    assert np.abs(normals).max() < 6.8


def test_classes_are_golden_uniform_and_per_index() -> None:
    assert classes(3, range(12), 10).tolist() == [0, 7, 2, 9, 8, 3, 7, 5, 1, 7, 5, 4]
    assert classes(2**64 - 1, [2**64 - 1], 1000).tolist() == [694]
    counts = np.bincount(classes(1, np.arange(20_000), 7), minlength=7)
    assert len(counts) == 7
    assert abs(counts / 20_000 - 1 / 7).max() < 0.01


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 300), max_size=8),
    st.integers(1, 9),
)
def test_mt19937_rows_are_those_of_randomstate(seed: int, indices: list[int], z_dim: int) -> None:
    rows = np.random.RandomState(seed).randn(301, z_dim).astype(np.float32)
    got = latents_mt19937(seed, indices, z_dim)
    assert got.dtype == np.float32
    assert got.tolist() == rows[np.array(indices, np.int64)].tolist()


def test_mt19937_goes_on_where_it_stopped_and_can_go_back() -> None:
    expected = np.random.RandomState(9).randn(1000, 513).astype(np.float32)
    walker = Mt19937Rows(9, 513)
    for indices in ([3, 4], [700, 5], [999, 999], [0]):
        assert (walker.rows(indices) == expected[indices]).all()


@pytest.mark.parametrize(
    ("call", "words_of_message"),
    [
        (lambda: latents(2**64, 0, [0], 4), ["seed", str(2**64), str(2**64 - 1)]),
        (lambda: latents(-1, 0, [0], 4), ["seed -1"]),
        (lambda: latents(0, 0, [-1], 4), ["index -1"]),
        (lambda: latents(0, 0, [0.5], 4), ["integers"]),
        (lambda: latents(0, 0, [[1]], 4), ["[1, 1]"]),
        (lambda: latents(0, 0, [0], 0), ["dim 0"]),
        (lambda: classes(0, [0], 0), ["num_classes 0"]),
        (lambda: latents_mt19937(2**32, [0], 4), [str(2**32), "philox"]),
        (lambda: latents_mt19937(0, [1_000_000], 4), ["1000000", "999999", "philox"]),
    ],
)
def test_arguments_out_of_range_name_value_and_limit(
    call: Callable[[], object], words_of_message: list[str]
) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    for word in words_of_message:
        assert word in str(caught.value)

"""Edits are a sum of directions added to w+; what was not measured is refused in one line."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.edits import edited, shift_from_query
from engines.errors import BundleLacks, SamplingError
from engines.fake import FakeMapping, fake_bundle
from engines.learned import learned_id_of_query
from engines.sampling import LatentOptions, default_options, ws_from_indices
from engines.sampling_request import options_from_proto
from labelmint.v1 import label_service_pb2 as pb

BUNDLE = fake_bundle(16, proposals=True, directions=True)
GENERATOR = BUNDLE.manifest.generator
STRENGTHS = st.floats(-2, 2)


def query(edits: list[tuple[str, float]], **fields: Any) -> pb.SampleQuery:
    proto = pb.SampleQuery(**fields)
    proto.sampling.edits.extend(pb.Edit(direction=d, strength=s) for d, s in edits)
    return proto


def shift_of(proto: pb.SampleQuery) -> Any:
    return shift_from_query(proto, BUNDLE, options_from_proto(proto.sampling, BUNDLE))


def by_hand(ws: NDArray[np.float32], strengths: dict[str, float]) -> NDArray[np.float32]:
    """One value of one row of one sample at a time."""
    found = ws.copy()
    for sample in range(ws.shape[0]):
        for row in range(ws.shape[1]):
            for column in range(ws.shape[2]):
                total = 0.0
                for name in sorted(strengths):
                    facts, rows = BUNDLE.directions[name].facts, BUNDLE.directions[name].rows
                    if facts.first_row <= row < facts.end_row:
                        total += strengths[name] * float(rows[row - facts.first_row, column])
                found[sample, row, column] = np.float32(ws[sample, row, column] + np.float32(total))
    return found


@settings(max_examples=25, deadline=None)
@given(more=STRENGTHS, late=STRENGTHS, reverse=st.booleans())
def test_edited_latents_are_the_literal_sum_to_the_bit(
    more: float, late: float, reverse: bool
) -> None:
    """The order of a request decides nothing."""
    options: LatentOptions = default_options(GENERATOR, 3)
    ws = ws_from_indices(FakeMapping(GENERATOR), GENERATOR, options, [5, 2**40])
    edits = [("late", late), ("more", more)]
    shift = shift_of(query(edits[::-1] if reverse else edits))
    assert edited(ws, shift).tobytes() == by_hand(ws, dict(edits)).tobytes()


def test_a_direction_moves_its_own_rows_alone() -> None:
    shift = shift_of(query([("late", 1.0)]))
    assert shift.shape == (GENERATOR.num_ws, GENERATOR.w_dim) and shift.dtype == np.float32
    assert not shift[:-2].any() and shift[-2:].all()
    assert shift_of(query([])) is None


def test_strength_zero_keeps_every_bit() -> None:
    ws = np.random.default_rng(0).standard_normal((4, 6, 16)).astype(np.float32)
    assert edited(ws, shift_of(query([("more", 0.0), ("late", -0.0)]))).tobytes() == ws.tobytes()
    assert edited(ws, None) is ws


@settings(max_examples=50, deadline=None)
@given(strength=st.floats().filter(lambda s: not -2 <= s <= 2))
def test_a_strength_that_was_not_measured_is_refused(strength: float) -> None:
    with pytest.raises(SamplingError, match="measured from -2 to 2") as caught:
        shift_of(query([("more", strength)]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strength", [-2.0, 2.0])
def test_the_ends_of_what_was_measured_are_served(strength: float) -> None:
    assert np.abs(shift_of(query([("more", strength)]))).max() > 0


@pytest.mark.parametrize(
    ("proto", "kind", "words"),
    [
        (query([("moer", 1)]), SamplingError, ("'moer'", "write one of 'more'")),
        (query([("", 1)]), SamplingError, ("''", "write one of")),
        (query([("x" * 9000, 1)]), SamplingError, ("xxx", "write one of")),
        (query([("more", 1), ("more", 1)]), SamplingError, ("twice",)),
        (query([(f"d{n}", 1) for n in range(9)]), SamplingError, ("9", "it may have 8")),
        (
            query([("more", 1)], sampling=pb.SamplingOptions(truncation_psi=0.5)),
            BundleLacks,
            ("psi 1,", "psi 0.5,", "--edit 'part 1'", "--replace", "--psi 0.5"),
        ),
        (
            query([("more", 1)], filter=pb.Filter(mode=pb.FILTER_MODE_KEEP_FRACTION)),
            SamplingError,
            ("keep_fraction", "use max_uncertainty"),
        ),
        (
            query([("more", 1)], filter=pb.Filter(balance_classes=True)),
            SamplingError,
            ("balance", "calibrated on samples without edits"),
        ),
        (query([("more", 1)], filter=pb.Filter(keep_by=["a"])), SamplingError, ("keep_by",)),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    proto: pb.SampleQuery, kind: type[Exception], words: tuple[str, ...]
) -> None:
    with pytest.raises(kind) as caught:
        shift_of(proto)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_bundle_without_directions_says_how_to_learn_one() -> None:
    proto = query([("more", 1.0)])
    with pytest.raises(BundleLacks, match="training directions --edit"):
        shift_from_query(proto, fake_bundle(16), default_options(GENERATOR))


def test_the_learned_id_is_of_what_is_named_alone() -> None:
    def learned_id(edits: Any, **fields: Any) -> str:
        return learned_id_of_query(query(edits, **fields), BUNDLE, default_options(GENERATOR))

    plain, one = learned_id([]), learned_id([("more", 1.0)])
    both = learned_id([("late", 1.0), ("more", 0.0)])
    turned = learned_id([("more", 2.0), ("late", 1.0)])
    with_proposal = learned_id([("more", 1.0)], filter=pb.Filter(proposal="rare"))
    assert plain == "" and both == turned
    assert len({one, both, with_proposal}) == 3
    assert all(len(each) == 64 and math.isfinite(int(each, 16)) for each in (one, with_proposal))

"""A selection's bounds keep what its rule keeps, by chances that its weights know exactly."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from bundle.errors import NotCalibrated
from engines.content import content_columns, passes, predicate_of_bundle
from engines.errors import BundleLacks, SamplingError
from engines.fake import fake_bundle, with_content
from engines.sampling import default_options
from engines.sampling_request import selection_from_filter
from engines.selection import Selection
from labelmint.options import query_from_options
from labelmint.v1 import label_service_pb2 as pb

BUNDLE = with_content(fake_bundle(16))
OPTIONS = default_options(BUNDLE.manifest.generator)
COLUMNS = content_columns(BUNDLE.manifest)
CONTENT = next(iter(BUNDLE.tables.values()))  # of 2,048 samples
LARGE = "share('part 1') >= 0.7"  # of few samples
SEEN = "visible('left')"
EITHER = "share('part 2') >= 0.26 or confidence('top') > 0.9"
INDICES = np.arange(len(CONTENT), dtype=np.uint64)


def selected(**options: Any) -> Selection:
    found = selection_from_filter(query_from_options(cast(Any, options)).filter, BUNDLE, OPTIONS)
    assert found is not None
    return found


def met(text: str) -> Any:
    return predicate_of_bundle(text, BUNDLE.manifest).met(CONTENT)


def kept(selection: Selection, seed: int = 3) -> Any:
    return passes(CONTENT, selection.boxes(seed, INDICES))


@pytest.mark.parametrize(
    "options",
    [
        {"balance": {LARGE: 0.5}},
        {"balance": {LARGE: 0.3, SEEN: 0.7, EITHER: 0.55}},
        {"balance": {EITHER: 0.1, f"not ({SEEN})": 0.6}, "where": "uncertainty < 0.9"},
        {"balance": {LARGE: 0.4}, "keep_by": [SEEN, EITHER], "keep_fraction": 0.7},
    ],
    ids=str,
)
def test_bounds_keep_by_the_coins_of_each_target(options: dict[str, Any]) -> None:
    selection = selected(**options)
    assert selection.balance is not None
    passed = np.ones(len(CONTENT), np.bool_)
    if selection.where is not None:
        passed &= selection.where.met(CONTENT)
    if "keep_by" in options:
        passed &= kept(selected(**{n: v for n, v in options.items() if n != "balance"}))
    demands = selection.balance.demands(3, INDICES)
    for number, text in enumerate(sorted(options["balance"])):
        rare = met(text)[passed].mean() < options["balance"][text]
        passed &= ~demands[:, number] | (met(text) == rare)
    np.testing.assert_array_equal(kept(selection), passed)
    assert 20 < passed.sum() < len(CONTENT) - 20


def test_a_coin_has_its_chance_and_depends_on_seed_and_index_alone() -> None:
    balance = selected(balance={LARGE: 0.5, SEEN: 0.6}).balance
    assert balance is not None
    many = np.arange(200_000, dtype=np.uint64)
    demands = balance.demands(9, many)
    chances = 1 - balance.chances / 2**32
    error = 5 * np.sqrt(chances * (1 - chances) / len(many))
    assert (np.abs(demands.mean(axis=0) - chances) <= error).all()
    assert (demands[:, 0] & demands[:, 1]).mean() == pytest.approx(chances.prod(), abs=5e-3)
    some = many[[5, 99_999, 7]]
    np.testing.assert_array_equal(balance.demands(9, some), demands[[5, 99_999, 7]])
    assert (balance.demands(10, many) != demands).any(axis=0).all()


def test_the_order_of_targets_decides_nothing() -> None:
    one = selected(balance={LARGE: 0.5, SEEN: 0.6})
    other = selected(balance={SEEN: 0.6, LARGE: 0.5})
    np.testing.assert_array_equal(one.boxes(1, INDICES), other.boxes(1, INDICES))
    np.testing.assert_array_equal(one.weights(CONTENT), other.weights(CONTENT))


def test_weighted_means_of_kept_samples_are_those_of_all() -> None:
    """Within five standard errors of the estimate, over 30 seeds of coins."""
    selection = selected(balance={LARGE: 0.3, EITHER: 0.55})
    assert selection.balance is not None
    probabilities = selection.balance.probabilities(CONTENT)
    weights = selection.weights(CONTENT).astype(np.float64)
    np.testing.assert_allclose(weights * probabilities, selection.balance.kept, rtol=1e-6)
    for values in (met(LARGE), met(SEEN), CONTENT[:, 0]):
        estimates = [(weights * values)[kept(selection, seed)].sum() for seed in range(30)]
        whole = selection.balance.kept * values.sum()  # what each of them is on average
        spread = np.sqrt((weights**2 * values**2 * probabilities * (1 - probabilities)).sum() / 30)
        assert abs(np.mean(estimates) - whole) < 5 * spread
    assert np.mean([weights[kept(selection, s)].mean() for s in range(30)]) == pytest.approx(
        1, abs=0.02
    )


def test_balanced_shares_are_the_targets() -> None:
    targets = {LARGE: 0.5, EITHER: 0.3, SEEN: 0.55}
    selection = selected(balance=targets)
    assert selection.balance is not None
    probabilities = selection.balance.probabilities(CONTENT)
    for text, share in targets.items():
        assert (probabilities * met(text)).sum() / probabilities.sum() == pytest.approx(
            share, abs=3e-4
        )
    assert met(LARGE).mean() < 0.2  # so that there was something to do


def test_each_stratum_keeps_the_fraction() -> None:
    selection = selected(keep_by=[LARGE, SEEN], keep_fraction=0.75)
    passed = kept(selection)
    for a in (met(LARGE), ~met(LARGE)):
        for b in (met(SEEN), ~met(SEEN)):
            assert passed[a & b].mean() == pytest.approx(0.75, abs=1 / (a & b).sum())
    assert selection.weights(CONTENT).tolist() == [1.0] * len(CONTENT)


def test_the_predicate_and_the_threshold_come_before_the_shares() -> None:
    options: Any = {"where": SEEN, "max_uncertainty": 0.5, "balance": {LARGE: 0.5}}
    selection = selected(**options)
    assert selection.balance is not None
    rest = met(SEEN) & (CONTENT[:, 0] <= 0.5)
    probabilities = selection.balance.probabilities(CONTENT) * rest
    assert (probabilities * met(LARGE)).sum() / probabilities.sum() == pytest.approx(0.5, abs=3e-4)


def test_all_rare_classes_are_raised_by_the_same_part_of_the_way() -> None:
    """In half of the images part 1 has no pixel, in a tenth part 2 has none."""
    content = CONTENT.copy()
    shares = [n for n, column in enumerate(COLUMNS) if column.kind == "share"]
    draws = np.random.default_rng(1).random((len(content), 2))
    content[draws[:, 0] < 0.9, shares[1]] = 0
    content[draws[:, 1] < 0.7, shares[2]] = 0
    bundle = replace(BUNDLE, tables={digest: content for digest in BUNDLE.tables})
    filtered = query_from_options({"balance": "classes"}).filter
    selection = selection_from_filter(filtered, bundle, OPTIONS)
    assert selection is not None and selection.balance is not None
    assert len(selection.balance.chances) == 2
    probabilities = selection.balance.probabilities(content)
    ways = []
    for number in (1, 2):
        shown = content[:, shares[number]] > 0
        reached = (probabilities * shown).sum() / probabilities.sum()
        ways.append((reached - shown.mean()) / (0.5 - shown.mean()))
    assert ways[0] == pytest.approx(ways[1], abs=5e-3) and 0.3 < ways[0] <= 1
    assert selection.balance.kept >= 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"balance": {"part 9": 0.5}}, "'part 9', which is neither a class .* write one of 'part"),
        ({"balance": {"share('part 1') >": 0.5}}, "filter.balance of .* is wrong at its end"),
        ({"balance": {"share('nose') > 0.1": 0.5}}, "has the class 'nose', which this bundle"),
        ({"balance": {"uncertainty('part 1') >= 0": 0.5}}, "which 2048 of 2048 .* meet"),
        ({"balance": {LARGE: 0.5}, "where": "uncertainty < 0.001"}, "only 1 calibrated samples"),
        (
            {"balance": {"share('part 1') >= 0.26": 0.5, "share('part 2') >= 0.3": 0.9,
                         "share('part 3') >= 0.3": 0.9}},
            "at least one sample in 200 is kept; on the way towards them it reaches share",
        ),
        ({"keep_by": "part 9", "keep_fraction": 1}, "filter.keep_by has 'part 9', which is"),
        ({"keep_by": "uncertainty >= 0", "keep_fraction": 0.5}, "keep_by has .*, which 2048 of"),
        (
            {"keep_by": [EITHER, f"not ({EITHER})", SEEN], "keep_fraction": 0.5,
             "where": " or ".join(f"confidence('top') == {n / 8}" for n in range(8))},
            "alternatives together, .* this bundle compares 16",
        ),
        (
            {"keep_by": [" or ".join(f"confidence('{name}') == {n / 8}" for n in range(8))
                         for name in ("left", "right", "top")], "keep_fraction": 0.5},
            "keep_by has over 16 alternatives once its conditions are combined",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SamplingError, match=words) as refused:
        selected(**options)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"balance": [pb.BalanceTarget(condition=LARGE, share=float("nan"))]}, "is nan; a share"),
        ({"balance": [pb.BalanceTarget(condition=LARGE, share=0.5)] * 2}, "a condition twice"),
        ({"balance": [pb.BalanceTarget(condition=LARGE, share=0.5)] * 17}, "17 conditions; .* 16"),
        ({"balance": [pb.BalanceTarget(condition="x" * 9000, share=0.5)]}, "neither a class"),
        ({"balance": [pb.BalanceTarget(share=0.5)]}, "has '', which is neither"),
        ({"balance_classes": True, "filter_sets": True}, "a coin is tossed for a sample"),
        (
            {"balance_classes": True, "balance": [pb.BalanceTarget(condition=LARGE, share=0.5)]},
            "exclude each other",
        ),
        ({"keep_by": [LARGE]}, "needs filter.keep_fraction"),
        (
            {"keep_by": [LARGE] * 4, "mode": pb.FILTER_MODE_KEEP_FRACTION, "keep_fraction": 0.5},
            "4 conditions; it may have 3",
        ),
    ],
)
def test_hostile_filters_are_refused_in_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SamplingError, match=words) as refused:
        selection_from_filter(pb.Filter(**changes), BUNDLE, OPTIONS)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


def test_older_bundles_and_calibrations_say_what_to_run() -> None:
    asked = query_from_options({"balance": {LARGE: 0.5}}).filter
    with pytest.raises(BundleLacks, match="export it again with python -m export bundle"):
        selection_from_filter(asked, fake_bundle(16, boxes=0), OPTIONS)
    with pytest.raises(BundleLacks, match="because it has no labels"):
        selection_from_filter(asked, fake_bundle(16, heads=False), OPTIONS)
    with pytest.raises(NotCalibrated, match=r"older version made it; run: .* --replace"):
        selection_from_filter(asked, fake_bundle(16), OPTIONS)
    with pytest.raises(NotCalibrated, match=r"is not calibrated for .* psi 0\.5"):
        selection_from_filter(asked, BUNDLE, replace(OPTIONS, truncation_psi=0.5))
    lost = replace(BUNDLE, tables={})
    with pytest.raises(BundleLacks, match=r"cannot be read .*; calibrate the bundle again"):
        selection_from_filter(asked, lost, OPTIONS)

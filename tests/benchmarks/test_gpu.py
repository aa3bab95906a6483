"""The GPU benchmark counts the work of a case, and stores what was measured."""

from pathlib import Path

import pytest

from benchmarks.gpu_cases import CASES, Ceilings, bound_per_s, stages
from benchmarks.gpu_results import Results, table

# GFLOP of synthesis, first layer, resizing and sums, other layers: counted by hand and in public
# code, two for a multiplication with its sum.
KNOWN = {
    "DatasetGAN cars": (55, 73.4, 14.1, 18.6),
    "DatasetGAN faces": (64, 211, 37.6, 194.6),
    "HandsOff faces": (149, 415, 37.7, 46.1),
    "HandsOff cars": (119, 573, 56.4, 525.5),
}


@pytest.mark.parametrize("case", KNOWN)
def test_the_count_is_that_of_the_published_networks(case: str) -> None:
    found = stages(CASES[case])
    synthesis = sum(s.tensor_flops for s in found if s.name.startswith(("synthesis", "image")))
    first = sum(s.tensor_flops for s in found if s.name.startswith("first layer"))
    counted = (synthesis, first, found[-1].other_flops, found[-1].tensor_flops)
    for value, known in zip(counted, KNOWN[case], strict=True):
        assert value / 1e9 == pytest.approx(known, rel=0.02)


def test_a_bound_falls_with_every_ceiling() -> None:
    best = Ceilings(8e14, 5e13, 4e12)
    for case, size in CASES.items():
        bound = bound_per_s(size, best)
        assert 100 < bound < 10_000, case
        assert bound_per_s(size, Ceilings(4e14, 2.5e13, 2e12)) == pytest.approx(bound / 2)


def test_figures_outlive_the_process_and_are_not_measured_again(tmp_path: Path) -> None:
    Results(tmp_path / "r").add("rates", case="a", batch=4, per_s=1.5)
    results = Results(tmp_path / "r")
    assert results.has("rates", case="a", batch=4)
    assert not results.has("rates", case="a", batch=8) and not results.has("branch", case="a")
    results.add("rates", "cut off", reason="time")
    assert [row["state"] for row in results.of("rates")] == ["measured", "cut off"]
    results.add("rates", case="a", batch=8, per_s=2.5)
    assert [row["state"] for row in results.of("rates")] == ["measured", "measured"]
    assert table(results.measured("rates"), ("batch", "per s")).splitlines() == [
        "| batch | per s |", "| --- | --- |", "| 4 | 1.5 |", "| 8 | 2.5 |",
    ]  # fmt: skip

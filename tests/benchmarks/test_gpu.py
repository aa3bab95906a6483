"""The GPU benchmark counts the work of a case, and stores what was measured."""

from pathlib import Path

import pytest

from benchmarks.gpu_cases import CASES, TILE, Ceilings, bound_per_s, rows_of_a_tile, stages
from benchmarks.gpu_results import Results, table
from export.graph.tiles import padded_reads, tile_reads

# GFLOP of synthesis, first layer, resizing, other layers: counted by hand, two for a multiplication
# with its sum. Resizing of HandsOff faces is 2 x 72 rows x 256 x 10 x 512 x 512.
KNOWN = {
    "DatasetGAN cars": (46, 73.4, 36.2, 18.6),
    "DatasetGAN faces": (55, 211, 96.6, 194.6),
    "HandsOff faces": (148.3, 415, 96.6, 46.1),
    "HandsOff cars": (119.2, 573, 145, 525.5),
}


@pytest.mark.parametrize("case", KNOWN)
def test_the_count_is_that_of_the_published_networks(case: str) -> None:
    found = stages(CASES[case])
    kinds = (("synthesis", "image"), ("first layer",), ("resizing",), ("other layers",))
    names: tuple[str, ...]
    for names, known in zip(kinds, KNOWN[case], strict=True):
        counted = sum(s.tensor_flops for s in found if s.name.startswith(names))
        assert counted / 1e9 == pytest.approx(known, rel=0.02), names


@pytest.mark.parametrize("case", KNOWN)
def test_the_rows_of_a_tile_are_those_of_the_graph(case: str) -> None:
    size = CASES[case]
    extents = tuple(r for r, _ in size.levels if r < size.grid)
    reads = padded_reads(tile_reads(extents, size.grid, TILE), 8)
    assert rows_of_a_tile(size) == reads.weights.shape[1] == 72


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

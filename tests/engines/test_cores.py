"""Threads follow what the container may use, not what the node has."""

from pathlib import Path

import pytest

from engines.ort import available_cores


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    unlimited = tmp_path / "cpu.max"
    unlimited.write_text("max 100000\n")
    assert available_cores(unlimited) == available_cores(tmp_path / "absent") >= 1


@pytest.mark.parametrize("text", ["100000 100000\n", "50000 100000\n", "1 100000\n"])
def test_a_quota_of_up_to_one_core_is_one_thread(tmp_path: Path, text: str) -> None:
    limited = tmp_path / "cpu.max"
    limited.write_text(text)
    assert available_cores(limited) == 1


@pytest.mark.parametrize("text", ["", "nonsense", "100000", "100000 0x", "100000 1 1"])
def test_an_unreadable_quota_is_ignored(tmp_path: Path, text: str) -> None:
    strange = tmp_path / "cpu.max"
    strange.write_text(text)
    assert available_cores(strange) >= 1

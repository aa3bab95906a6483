"""ptxas's report of the fused kernels: registers, spills, and whether products are serialized.

Kernels are compiled in a process of their own, because Triton either compiles or interprets.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fused_counts import SIZES
from checkpoints.recipes import published_names, recipe_from_name
from export.errors import ExportError
from export.fused.compile import PtxasReport, report_from_log

CLEAN = """\
ptxas info    : 11 bytes gmem
ptxas info    : Compiling entry function 'label_pixels' for 'sm_90a'
ptxas info    : Function properties for label_pixels
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 126 registers, used 1 barriers
"""
SMALL = 'Size(64, 1024, 64, (128, 32), 7, 2, "stylegan1")'
# Compiles what the export of a bundle of this size would store.
COMPILE = """
import json
from benchmarks.fused_counts import SIZES, launches_from_size
from benchmarks.sizes import Size
from export.fused.bundle import TUNINGS, first_fitting
from export.fused.compile import compiled_kernels

def compiler(kernels, capability):
    wanted = {{n: k for n, k in kernels.items() if k.entry == "label_pixels" or not {only_label}}}
    return compiled_kernels(wanted, capability)

options = ((launches_from_size({size}, tuning), tuning) for tuning in TUNINGS)
_, _, compiled = first_fitting(options, "{capability}", compiler)
print(json.dumps({{name: kernel.report.spilled_bytes for name, kernel in compiled.items()}}))
"""


def spilled_bytes(
    folder: Path, size: str, capability: str, only_label: bool = False
) -> dict[str, int]:
    """Bytes that each chosen kernel spills; fails if every shape has serialized products."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    program = COMPILE.format(size=size, capability=capability, only_label=only_label)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"TRITON_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.long
def test_a_small_ensemble_compiles_without_serialized_products_or_spills(tmp_path: Path) -> None:
    """The first layer has several chunks, so that the loop has a branch at the last one."""
    found = spilled_bytes(tmp_path, SMALL, "9.0", only_label=True)
    assert len(found) == 1 and not any(found.values()), found


@pytest.mark.long
@pytest.mark.parametrize("capability", ["9.0", pytest.param("8.0", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n != "HandsOff faces" else ()) for n in SIZES],
)
def test_no_published_size_serializes_products_or_spills(
    tmp_path: Path, name: str, capability: str
) -> None:
    found = spilled_bytes(tmp_path, f"SIZES[{name!r}]", capability)
    assert len(found) > 1 and not any(found.values()), found


def test_every_published_recipe_has_a_size_that_is_compiled() -> None:
    sizes = {
        (size.grid, size.crop_top, size.rows, size.classes, 2 * sum(c for _, c in size.levels))
        for size in SIZES.values()
    }
    for recipe in (recipe_from_name(name).file for name in published_names()):
        shape = (recipe.grid, recipe.crop_top, recipe.height, len(recipe.classes), recipe.features)
        assert shape in sizes, recipe.note


def test_the_report_has_registers_and_spills() -> None:
    assert report_from_log(CLEAN) == PtxasReport(registers=126, spilled_bytes=0)
    spilling = CLEAN.replace("0 bytes spill stores, 0 bytes", "16 bytes spill stores, 20 bytes")
    assert report_from_log(spilling).spilled_bytes == 36
    with pytest.raises(ExportError, match="no registers"):
        report_from_log("")


def test_the_report_names_serialized_products() -> None:
    warning = (
        "ptxas info    : (C7514) Potential Performance Loss: wgmma.mma_async instructions are "
        "serialized due to non wgmma instructions in function 'label_pixels'\n"
    )
    assert report_from_log(CLEAN + warning).serialized.startswith("C7514: Potential")

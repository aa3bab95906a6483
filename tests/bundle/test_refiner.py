"""A refiner is a part of what a bundle is."""

from pathlib import Path
from typing import Any

import msgspec

from bundle import open_bundle
from bundle.manifest import RefinerFacts
from bundle.read import bundle_id_from_content
from bundle.write import write_manifest
from tests.bundle.refusals import refusal

REFINER = {
    "weights_sha256": "0" * 64,
    "generator_sha256": None,
    "width": 8,
    "blocks": 2,
    "grain": 3,
    "grain_seed": 0,
    "regulariser": "0.5 x mean of identity",
    "shift_px": 0.2,
    "structure": 0.9,
    "agreement": None,
}


def test_a_refiner_is_part_of_the_id_and_nothing_without_one_changes(
    folder: Path, editor: Any
) -> None:
    plain = open_bundle(folder).manifest
    assert "refiner" not in editor.read()
    editor.set("refiner", REFINER)
    assert "bundle_id" in refusal(folder)
    refiner = msgspec.convert(REFINER, RefinerFacts)
    identity = bundle_id_from_content(
        plain.generator, plain.labels, plain.heads, plain.files, refiner
    )
    write_manifest(folder, msgspec.structs.replace(plain, refiner=refiner, bundle_id=identity))
    assert open_bundle(folder).manifest.refiner == refiner
    editor.set("refiner.mood", 1)
    assert "mood" in refusal(folder)
    for field, value in (("width", 0), ("grain", -1), ("weights_sha256", "xyz")):
        editor.set("refiner", REFINER | {field: value})
        assert f"refiner.{field} is {value!r}" in refusal(folder)

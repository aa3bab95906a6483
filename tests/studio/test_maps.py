"""Maps for lists are small, and have the class ids of the whole ones."""

from __future__ import annotations

import numpy as np
import pytest

from studio.maps import small_map
from tests.studio.conftest import Served


@pytest.mark.parametrize("shape", [(64, 64), (48, 96), (1024, 1000), (1, 700), (37, 41)])
def test_a_small_map_has_the_values_of_the_places_that_it_shows(shape: tuple[int, int]) -> None:
    rows, columns = np.indices(shape)
    small = np.stack([small_map((part % 251).astype(np.uint8), 20) for part in (rows, columns)])
    assert max(small.shape[1:]) == min(20, max(shape))
    for part, extent, axis in zip(small, shape, (0, 1), strict=True):
        values, count = np.moveaxis(part, axis, 0)[:, 0].astype(int), part.shape[axis]
        middles = (np.arange(count) + 0.5) * extent / count
        assert (np.abs((values - np.floor(middles)) % 251) <= 1).all()
    assert (small_map(np.full(shape, 7, np.uint8), 4096) == np.full(shape, 7)).all()


def test_a_list_gets_small_masks_and_the_canvas_whole_ones(served: Served) -> None:
    height, width = served.studio.project.size
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 1
    assert served.save("000", mask.tobytes(), '"none"').status == 204
    whole = served.request("GET", "/api/images/000/mask")
    assert whole.body == mask.tobytes() and "etag" in whole.headers
    small = served.request("GET", "/api/images/000/mask?side=16")
    assert small.headers["x-studio-size"] == "16 16"
    assert small.body == mask[::2, ::2].tobytes()
    assert "etag" not in small.headers, "nobody saves over a mask by its small picture"
    for bad in ("0", "15", "4097", "x", ""):
        assert served.request("GET", f"/api/images/000/mask?side={bad}").status == 400

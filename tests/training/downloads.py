"""A downloaded folder of objects with views: what is asked of it, and how it is refused."""

from pathlib import Path

import pytest

from training.errors import TrainingError
from training.inverse_graphics.downloaded_sets import sets_from_source
from training.inverse_graphics.object_sets import SetsConfig

ASKED = SetsConfig(objects=6, views=None, extent=16, background=(), seed=4)
VIEWS = 5  # of which the last has no azimuth
WHOLE = ("--views-per-object", "5", "--seed", "4", "--count", "30")
FORMATS = {"png": ("--format", "png"), "tars": ("--samples-per-shard", "13")}


def refusal(source: Path | str, asked: SetsConfig = ASKED) -> str:
    with pytest.raises(TrainingError) as refused:
        sets_from_source(str(source), asked)
    said = str(refused.value)
    assert "\n" not in said and str(source) in said
    return said

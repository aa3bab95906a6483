"""What the fixtures of this folder are labels of: two pictures of 64 x 48 pixels, two classes.

Needs numpy and Pillow alone: the scripts beside it run in environments of their own.
"""

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
CLASSES = ("ear", "eye")  # ids 1 and 2; 0 is the background
POINTS = {"000": {"tip": (10.25, 12.5), "toe": (40.0, 30.75)}, "001": {"tip": (5.0, 6.0)}}
POLYGON = [(8.0, 10.0), (30.0, 10.0), (30.0, 28.0), (8.0, 28.0)]  # the ear of 000


def masks(stem: str) -> dict[str, np.ndarray]:
    """Region of each class, bool [48, 64]; an eye lies on its ear."""
    row, column = np.ogrid[:HEIGHT, :WIDTH]
    ear = np.zeros((HEIGHT, WIDTH), bool)
    if stem == "000":
        ear[10:28, 8:30] = True
        return {"ear": ear, "eye": (row - 18.5) ** 2 + (column - 20.5) ** 2 <= 30}
    ear |= (row - 20) ** 2 / 200 + (column - 40) ** 2 / 300 <= 1
    ear &= ~((row - 20) ** 2 + (column - 40) ** 2 <= 25)  # a hole
    ear[40:44, 2:9] = True  # a second part
    return {"ear": ear}


def ids(stem: str) -> np.ndarray:
    """Class ids, uint8 [48, 64]."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    for name, region in masks(stem).items():
        drawn[region] = CLASSES.index(name) + 1
    return drawn


def picture(path: Path) -> Path:
    """A gray picture of the right size."""
    Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(path)
    return path

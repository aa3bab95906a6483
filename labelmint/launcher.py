"""Which of the processes of a training this one is: as told, or as torchrun and its like say."""

from __future__ import annotations

import os


def rank_of_launcher(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """These two where they are given, else the environment's RANK and WORLD_SIZE, else 0 of 1.

    Raises ValueError when they are no rank and its world.
    """
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank {rank} and world_size {world_size} go together; give both")
    if rank is None or world_size is None:
        rank, world_size = _from_environment("RANK", 0), _from_environment("WORLD_SIZE", 1)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is outside 0 to world_size - 1 = {world_size - 1}")
    return rank, world_size


def _from_environment(name: str, absent: int) -> int:
    text = os.environ.get(name, str(absent))
    if not text.isdecimal():
        raise ValueError(f"the environment's {name} is {text!r}; it has to be a number")
    return int(text)

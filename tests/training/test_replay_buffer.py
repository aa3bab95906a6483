"""The buffer fills, stays full, and half of what the critic sees as refined is from it."""

import torch

from training.refiner.state import ReplayBuffer
from training.refiner.train import mixed_with_replay


def numbered(first: int, count: int) -> torch.Tensor:
    """Images whose value is their number."""
    return torch.arange(first, first + count).float()[:, None, None, None].expand(-1, 3, 4, 4)


def numbers(images: torch.Tensor) -> list[int]:
    return sorted(images[:, 0, 0, 0].int().tolist())


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_it_fills_up_with_all_that_comes() -> None:
    history, random = ReplayBuffer(10, (3, 4, 4)), rng()
    assert len(history.draw(4, random)) == 0
    for first in range(0, 8, 4):
        history.push(numbered(first, 4), random)
    assert history.filled == 8
    assert numbers(history.draw(100, random)) == list(range(8))
    history.push(numbered(8, 4), random)  # two fit, two replace
    assert history.filled == 10
    kept = numbers(history.draw(100, random))
    assert len(set(kept)) == 10 and set(range(8, 12)) <= set(kept)


def test_a_full_one_lets_random_old_ones_go() -> None:
    history, random = ReplayBuffer(64, (3, 4, 4)), rng()
    for first in range(0, 64 + 8 * 30, 8):
        history.push(numbered(first, 8), random)
        assert history.filled == min(first + 8, 64)
    kept = numbers(history.draw(64, random))
    assert len(set(kept)) == 64 and set(range(296, 304)) <= set(kept)
    assert 5 < sum(n < 200 for n in kept) < 40  # neither only the newest nor none of them


def test_draws_are_without_repetition_and_differ() -> None:
    history, random = ReplayBuffer(16, (3, 4, 4)), rng()
    history.push(numbered(0, 16), random)
    draws = [tuple(numbers(history.draw(5, random))) for _ in range(20)]
    assert all(len(set(draw)) == 5 for draw in draws) and len(set(draws)) > 15


def test_half_of_the_critics_batch_is_history_once_there_is_some() -> None:
    history, random = ReplayBuffer(100, (3, 4, 4)), rng()
    first = mixed_with_replay(numbered(0, 8), history, random)
    assert numbers(first) == list(range(8)) and history.filled == 4
    for round_ in range(1, 30):
        batch = mixed_with_replay(numbered(8 * round_, 8), history, random)
        old = [n for n in numbers(batch) if n < 8 * round_]
        assert len(batch) == 8 and len(old) == 4
        assert history.filled == min(4 * round_ + 4, 100)

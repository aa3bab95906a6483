"""A signal while a network is built ends the command as a signal, not as an error of its card."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
from torch import nn

from checkpoints import Interrupted, signals_held
from checkpoints.weights import meta_module


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """SIGINT is, in a shell's background too, which ignores it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_a_signal_while_a_network_is_built_waits_until_it_is() -> None:
    """Raised inside, it can become torch's "trying to pop from empty mode stack"."""
    built: list[nn.Module] = []

    def build() -> nn.Module:
        os.kill(os.getpid(), signal.SIGINT)
        built.append(nn.Linear(1, 1))
        return built[0]

    def raised_inside(*_: object) -> None:
        raise RuntimeError("trying to pop from empty mode stack")

    previous = signal.signal(signal.SIGINT, raised_inside)
    try:
        with pytest.raises(Interrupted) as caught:
            meta_module(build)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert caught.value.number == signal.SIGINT and built


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_a_network_that_is_built_within_a_step_leaves_the_signal_to_the_step(
    error: type[Exception] | None,
) -> None:
    done: list[str] = []

    def build() -> nn.Module:
        os.kill(os.getpid(), signal.SIGINT)
        if error is not None:
            raise error
        return nn.Linear(1, 1)

    with pytest.raises(Interrupted, match="the step was saved"), signals_held() as held:
        with suppress(ZeroDivisionError):
            meta_module(build)
        done.append("the rest of the step")
        held.end("the step was saved")
    assert done

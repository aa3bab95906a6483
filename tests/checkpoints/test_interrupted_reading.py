"""A signal while a network is built ends the command as a signal, not as an error of its card."""

import os
import signal

import pytest
from torch import nn

from checkpoints import Interrupted
from checkpoints.weights import meta_module


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

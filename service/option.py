"""A flag of a command of the service, which may also come from the environment."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def option(flag: str, **settings: Any) -> Callable[[Command], Command]:
    """An option with its environment twin, LABELMINT_SERVER_ and the flag's name."""
    twin = "LABELMINT_SERVER_" + flag.lstrip("-").replace("-", "_").upper()
    return click.option(flag, envvar=twin, show_envvar=True, show_default=True, **settings)

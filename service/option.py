"""A flag of a command of the service, which may also come from the environment."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def option(flag: str, **settings: Any) -> Callable[[Command], Command]:
    """An option with its environment twin, LABELMINT_SERVER_ and the flag's name."""
    twin = "LABELMINT_SERVER_" + flag.lstrip("-").replace("-", "_").upper()
    if isinstance(settings.get("type"), click.FloatRange):
        settings.setdefault("callback", _refuse_nan)
    return click.option(flag, envvar=twin, show_envvar=True, show_default=True, **settings)


def _refuse_nan(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    if value != value:  # which no range refuses
        raise click.BadParameter("nan is not a number", context, parameter)
    return value

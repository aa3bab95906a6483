"""What --help of the client, of the service and of `bundle` tells of every option."""

from __future__ import annotations

import click
import pytest

from bundle.__main__ import main as bundle
from labelmint.cli.commands import labelmint
from service.__main__ import main as service

COMMANDS = {
    f"{group.name} {name}": command
    for group in (labelmint, service, bundle)
    for name, command in group.commands.items()
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_option_that_may_be_left_out_shows_its_default(command: click.Command) -> None:
    parent = click.Context(labelmint, show_default=labelmint.context_settings["show_default"])
    context = click.Context(command, parent=parent)
    for option in command.params:
        record = option.get_help_record(context)
        if isinstance(option, click.Option) and record and not (option.required or option.is_flag):
            assert "default: " in record[1], option.opts


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_environment_variable_of_an_option_is_shown(command: click.Command) -> None:
    for option in command.params:
        if isinstance(option, click.Option) and option.envvar:
            assert option.show_envvar, option.opts

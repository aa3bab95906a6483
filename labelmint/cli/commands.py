"""The command `labelmint`, which `cli` runs: its verbs. Needs the extra `cli`."""

from __future__ import annotations

import click

import labelmint as package
from labelmint.cli.bench import bench
from labelmint.cli.doctor import doctor
from labelmint.cli.download import download
from labelmint.cli.models import models
from labelmint.cli.preview import preview


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package.__version__, prog_name="labelmint")
def labelmint() -> None:
    """Labelled training data from a generator, streamed.

    A server that asks for a token gets the one of the environment's LABELMINT_TOKEN.
    """


for verb in (bench, doctor, download, models, preview):
    labelmint.add_command(verb)

"""The command `labelmint`, which `cli` runs: its verbs. Needs the extra `cli`."""

from __future__ import annotations

import click

import labelmint as package
from labelmint.verbs.bench import bench
from labelmint.verbs.doctor import doctor
from labelmint.verbs.download import download
from labelmint.verbs.models import models
from labelmint.verbs.preview import preview


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package.__version__, prog_name="labelmint")
def labelmint() -> None:
    """Labelled training data from a generator, streamed.

    A server that asks for a token gets the one of the environment's LABELMINT_TOKEN.
    """


for verb in (bench, doctor, download, models, preview):
    labelmint.add_command(verb)

"""The click group `labelmint` with all its subcommands; `labelmint.cli.main` runs it.

Needs the extra `cli`. A module of its own, because `labelmint.cli` must import without click, to
say that it is missing.
"""

from __future__ import annotations

import click

import labelmint as package
from labelmint.cli.bench import bench
from labelmint.cli.doctor import doctor
from labelmint.cli.download import download
from labelmint.cli.models import models
from labelmint.cli.preview import preview


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package.__version__, prog_name="labelmint")
def labelmint() -> None:
    """Stream labeled training images from a labelmint server.

    The server generates images and labels (masks, keypoints, depth) with a StyleGAN. The model, a
    seed and an index determine each sample.

    If the server requires a token, set the environment variable LABELMINT_TOKEN.
    """


for subcommand in (bench, doctor, download, models, preview):
    labelmint.add_command(subcommand)

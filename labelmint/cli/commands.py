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

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(package.__version__, prog_name="labelmint")
def labelmint() -> None:
    """Stream labeled training images from a labelmint server.

    The server generates images and labels (masks, keypoints, depth) with a StyleGAN. The model, a
    seed and an index determine each sample.

    If the server requires a token, set the environment variable LABELMINT_TOKEN.
    """


for subcommand in (bench, doctor, download, models, preview):
    labelmint.add_command(subcommand)
    for option in subcommand.params:
        if isinstance(option, click.Option) and not (option.required or option.is_flag):
            record = option.get_help_record(click.Context(subcommand, show_default=True))
            if record and "default: " not in record[1]:
                option.show_default = "none"

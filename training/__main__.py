"""Command line of `python -m training`; its subcommands are in `command.py` or `*_command.py`."""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C during the imports, which take seconds, ends without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from labelmint.extras import name_missing_extra

if __name__ == "__main__":
    name_missing_extra("train")

import click

from checkpoints import CheckpointError, Interrupted, raise_on_signals
from training.directions.command import directions
from training.errors import TrainingError
from training.evaluate.command import evaluate
from training.images.sample_command import sample
from training.interpreter.command import interpreter
from training.inverse_graphics.command import inverse_graphics
from training.inverse_graphics.shapes_command import shapes
from training.inversion.command import invert
from training.inversion.encoder_command import encoder
from training.labels.command import labels
from training.options import refuse_nan, show_missing_default
from training.refiner.command import refiner
from training.views.command import views

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}


@click.group(context_settings=CONTEXT)
def main() -> None:
    """Train label ensembles and related networks on a frozen StyleGAN generator.

    A typical session: `sample` images, label them, train with `interpreter`, check with `evaluate`.
    """


main.add_command(refiner)
main.add_command(sample)
main.add_command(encoder)
main.add_command(invert)
main.add_command(labels)
main.add_command(interpreter)
main.add_command(evaluate)
main.add_command(views)
main.add_command(inverse_graphics)
main.add_command(shapes)
main.add_command(directions)
for command in (*main.commands.values(), *labels.commands.values()):
    for parameter in command.params:
        if isinstance(parameter.type, click.types.FloatParamType):
            parameter.callback = parameter.callback or refuse_nan
        show_missing_default(parameter)


def run() -> None:
    """Runs the command line; exit code 1 and one line for bad input, 2 for bad usage, 128 plus
    its number for a signal."""
    raise_on_signals()
    try:
        main(prog_name="python -m training")
    except Interrupted as interrupted:
        click.echo(f"interrupted: {interrupted}", err=True)
        sys.exit(interrupted.exit_code)
    except (TrainingError, CheckpointError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # a failed write, as to a full disk, does not name its file
        click.echo(
            f"error: {error.filename or 'a file of --out'}: {error.strerror or error}", err=True
        )
        sys.exit(1)


if __name__ == "__main__":
    run()

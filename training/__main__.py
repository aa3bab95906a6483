"""Command line of `python -m training`; its subcommands are in `command.py` or `*_command.py`."""

import atexit
import gc
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C during the imports, which take seconds, ends without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from typing import NoReturn

from labelmint.extras import name_missing_extra

if __name__ == "__main__":
    name_missing_extra("train")
    atexit.register(gc.freeze)  # no search for garbage at the end, a fifth of a short command

import click

from bundle.errors import printable_line
from checkpoints import CheckpointError, Interrupted, end_command, raise_on_signals
from training.errors import TrainingError
from training.options import refuse_huge, refuse_infinite, show_missing_default

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
SUBCOMMANDS = {  # and the first line of their help
    "directions": "Learn which samples a rare predicate needs, or which way w goes for more of a "
    "class.",
    "encoder": "Train the encoder that `invert --encoder` starts from.",
    "evaluate": "Compare an interpreter's labels with held-out labels.",
    "interpreter": "Train the label ensemble on a folder of labeled images.",
    "inverse-graphics": "Train a network from one image to a textured mesh.",
    "invert": "Find the latents of real images, to use their labels.",
    "labels": "Read labels of annotation tools, check them, and write them for other tools.",
    "refiner": "Train a refiner: it makes images look like real ones.",
    "sample": "Sample images for people to label.",
    "shapes": "Write each object's mesh, pictures and 3D keypoints.",
    "views": "Make a bank of view codes, for `export bundle --views`.",
}


class Subcommands(click.Group):
    """Subcommands that are imported when they are named: all of them together take seconds."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        command = imported_subcommand(name)
        for each in (command, *getattr(command, "commands", {}).values()):
            for parameter in each.params if each else ():
                if isinstance(parameter.type, click.types.FloatParamType):
                    parameter.callback = parameter.callback or refuse_infinite
                whole = isinstance(parameter.type, click.types.IntParamType)
                if whole and getattr(parameter.type, "max", None) is None:
                    parameter.callback = parameter.callback or refuse_huge
                show_missing_default(parameter)
        return command


def imported_subcommand(name: str) -> click.Command | None:
    match name:
        case "directions":
            from training.directions.command import directions

            return directions
        case "encoder":
            from training.inversion.encoder_command import encoder

            return encoder
        case "evaluate":
            from training.evaluate.command import evaluate

            return evaluate
        case "interpreter":
            from training.interpreter.command import interpreter

            return interpreter
        case "inverse-graphics":
            from training.inverse_graphics.command import inverse_graphics

            return inverse_graphics
        case "invert":
            from training.inversion.command import invert

            return invert
        case "labels":
            from training.labels.command import labels

            return labels
        case "refiner":
            from training.refiner.command import refiner

            return refiner
        case "sample":
            from training.images.sample_command import sample

            return sample
        case "shapes":
            from training.inverse_graphics.shapes_command import shapes

            return shapes
        case "views":
            from training.views.command import views

            return views
    return None


@click.group(cls=Subcommands, context_settings=CONTEXT)
def main() -> None:
    """Train label ensembles and related networks on a frozen StyleGAN generator.

    A typical session: `sample` images, label them, train with `interpreter`, check with `evaluate`.
    """


def run() -> None:
    """Runs the command line; exit code 1 and one line for bad input, 2 for bad usage, 128 plus
    its number for a signal."""
    raise_on_signals()
    try:
        main(prog_name="python -m training")
    except Interrupted as interrupted:
        end_command(interrupted, f"interrupted: {interrupted}")
    except (TrainingError, CheckpointError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # a failed write, as to a full disk, does not name its file
        message = f"{error.filename or 'a file of --out'}: {error.strerror or error}"
        click.echo(f"error: {printable_line(message)}", err=True)
        sys.exit(1)
    except MemoryError as error:  # such as of a --count with too many digits
        _end_for_memory(error)
    except RuntimeError as error:  # of PyTorch's allocators, such as of a --hidden that is too wide
        if "can't allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        _end_for_memory(error)


def _end_for_memory(error: Exception) -> NoReturn:
    reason = str(error).partition("\n")[0]
    click.echo(f"error: not enough memory: {printable_line(reason)}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    run()

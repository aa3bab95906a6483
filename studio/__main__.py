"""`python -m studio`: a generator and a project folder -> a web application on this machine."""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C during the imports, which take seconds, ends without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from labelmint.extras import name_missing_extra

if __name__ == "__main__":
    name_missing_extra("train,export,studio")

import asyncio
import fcntl
import logging
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import uvicorn

from bundle.errors import printable_line
from bundle.files import made_folder, opened_regular_file
from checkpoints import (
    CheckpointError,
    GeneratorCard,
    Interrupted,
    end_command,
    raise_on_signals,
    signals_held,
)
from nets.generator import Generator
from studio.app import application
from studio.connections import MAX_CONNECTIONS, PatientProtocol
from studio.errors import StudioError
from studio.export_run import ExportRun
from studio.learner import Learner, learning_command
from studio.pick import Candidates, finish_change
from studio.project import WORK, Project
from studio.reviews import Reviews
from studio.select import FeatureTables
from studio.summary import Studio
from studio.tabs import Tabs
from studio.turns import Turns
from studio.wall import wall_command
from training.errors import TrainingError
from training.images.image_set import INDEX, check_generator
from training.images.sample import SampleConfig, sample_images
from training.label_crop import crop_for_generator
from training.options import FOLDER, generator_option, mean_latent_option, read_generator

TOKEN, TOKEN_BYTES, MAX_TOKEN_BYTES = "token", 24, 256
WHOLE_TOKEN = re.compile("[0-9A-Za-z_-]{32,}")
CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
LOCK = "lock"  # in the work folder
CLOSING_S = 1  # that clients get to send and to read when the server ends
COMPUTING_S = 60  # that what is computed then gets; a second Ctrl-C does not wait


@click.command(context_settings=CONTEXT)
@generator_option
@mean_latent_option
@click.option(
    "--project",
    "folder",
    type=FOLDER,
    required=True,
    help="Folder of images and labels, as `training sample` or `training invert` writes it; a new "
    "one gets 16 typical images.",
)
@click.option(
    "--listen",
    default="127.0.0.1:8765",
    metavar="HOST:PORT",
    help="Loopback address to listen on; port 0: any free one.",
)
def main(generator_path: Path, mean_latent: Path | None, folder: Path, listen: str) -> None:
    """Label a generator's images in the browser, and export what an ensemble learns from them.

    Prints the address to open. Everything is saved in the project folder at once; Ctrl-C ends.
    """
    listener = listening_socket(listen)
    with owned_project(folder):
        studio = opened_studio(generator_path, mean_latent, folder)
        try:
            token = stored_token(studio.project.work / TOKEN)
            host, port = listener.getsockname()[:2]
            name = f"[{host}]" if ":" in host else host
            click.echo(f"studio of {folder}: open http://{name}:{port}/?token={token}")
            server_of(studio, token).run(sockets=[listener])
        finally:
            with signals_held():  # another Ctrl-C leaves none behind
                studio.learner.close()
                studio.export.close()
                studio.reviews.close()


@contextmanager
def owned_project(folder: Path) -> Iterator[None]:
    """Keeps other studios from the project while the block runs: each writes the labels that it
    has in memory, and would lose those of the other. Raises StudioError, OSError.

    The lock is on a file of its own: who writes weights or a bundle into a folder locks the folder,
    as the studio's own processes do.
    """
    path = folder / WORK / LOCK
    with made_folder(path.parent):
        made = not path.exists()
        try:
            descriptor = _locked_file(path)
        except BlockingIOError as error:
            raise StudioError(
                f"{folder} is open in another studio; open the address that it has printed, "
                "or end it first"
            ) from error
        try:
            try:
                yield
            except BaseException:
                if made:
                    path.unlink(missing_ok=True)
                raise
        finally:
            os.close(descriptor)


def _locked_file(path: Path) -> int:
    """A descriptor that holds the lock on the file of this path, or none on file systems without
    locks. Raises BlockingIOError while another process holds it, OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:
                return descriptor
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # of a file that a studio which ended meanwhile has removed


def opened_studio(generator_path: Path, mean_latent: Path | None, folder: Path) -> Studio:
    """Opens a project, or draws the images of a new one.

    Raises TrainingError, CheckpointError, OSError.
    """
    generator, card, sha256 = read_generator(generator_path, mean_latent)
    finish_change(folder)
    if not (folder / INDEX).exists():
        draw_images(generator, card, sha256, folder)
    project = Project(folder)
    check_generator(project.images, generator.config, sha256, generator_path)
    tabs, turns = Tabs(), Turns()
    command = learning_command(generator_path, mean_latent, folder)
    return Studio(
        project,
        tabs,
        turns,
        Candidates(project, generator, turns),
        FeatureTables(project, generator, turns),
        Learner(project, command, tabs.publish),
        ExportRun(project, generator_path, mean_latent, tabs.publish),
        Reviews(project, wall_command(generator_path, mean_latent, folder), tabs.publish),
    )


def listening_socket(listen: str) -> socket.socket:
    """A socket on a loopback address. Raises StudioError."""
    host, _, port = listen.rpartition(":")
    if host not in ("127.0.0.1", "localhost", "[::1]") or not port.isdecimal() or int(port) > 65535:
        raise StudioError(
            f"--listen is {listen!r}; the studio listens on 127.0.0.1:PORT alone, as whoever "
            "reaches it can change your labels. From another machine: "
            "ssh -L 8765:127.0.0.1:8765 THIS-MACHINE, then open the printed address there"
        )
    family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host.strip("[]"), int(port)))
        found.listen()
    except OSError as error:
        found.close()
        raise StudioError(
            f"--listen is {listen}, which cannot be had ({error.strerror}); give another port"
        ) from error
    return found


def draw_images(generator: Generator, card: GeneratorCard, sha256: str, folder: Path) -> None:
    """The images that `training sample` would draw without further options."""
    count = SampleConfig.count
    config = SampleConfig(count, 16 * count, psi=card.truncation_psi, cutoff=card.truncation_cutoff)
    sample_images(generator, config, crop_for_generator(generator.config), folder, sha256)


def stored_token(path: Path) -> str:
    """The project's token, kept so that open tabs go on after a restart. Only the user can read
    the file; one that others can read, or wrote, such as of a copied project, is made anew. Raises
    OSError."""
    with suppress(OSError), opened_regular_file(path) as stream:
        status = os.fstat(stream.fileno())
        known = stream.read(MAX_TOKEN_BYTES).decode("latin-1").strip()
        private = status.st_uid == os.getuid() and not status.st_mode & 0o077
        if private and WHOLE_TOKEN.fullmatch(known):
            return known
    token = secrets.token_urlsafe(TOKEN_BYTES)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(token + "\n")
    return token


class StudioServer(uvicorn.Server):
    """A server that ends its streams of events, and gives connections CLOSING_S to end theirs."""

    def __init__(self, config: uvicorn.Config, tabs: Tabs, turns: Turns) -> None:
        super().__init__(config)
        self.tabs, self.turns = tabs, turns

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.tabs.end_streams()
        self.turns.end()
        asyncio.get_running_loop().call_later(CLOSING_S, self._give_up)
        await super().shutdown(sockets)

    def _give_up(self) -> None:
        """Closes what is open still. That it was is no fault, and nothing is said of it."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        for connection in list(self.server_state.connections):
            assert isinstance(connection, PatientProtocol)
            connection.give_up()


def server_of(studio: Studio, token: str) -> StudioServer:
    """The server of a studio; it ends with SIGINT or SIGTERM. It warns of no request: a page of
    another site could fill the terminal."""
    config = uvicorn.Config(
        application(studio, token), http=PatientProtocol, ws="none", lifespan="off",
        log_level="error", access_log=False, server_header=False, date_header=False,
        proxy_headers=False, timeout_graceful_shutdown=COMPUTING_S,
        limit_concurrency=2 * MAX_CONNECTIONS,  # requests of closed connections end a moment later
    )  # fmt: skip
    return StudioServer(config, studio.tabs, studio.turns)


def run() -> None:
    """Runs the command line; exit code 1 and one line for bad input, 2 for bad usage, 128 plus
    its number for a signal."""
    raise_on_signals()
    try:
        main(prog_name="python -m studio")
    except Interrupted as interrupted:
        end_command(interrupted, "stopped; every stroke that the server has received is saved")
    except (StudioError, TrainingError, CheckpointError) as error:
        click.echo(f"error: {printable_line(str(error))}", err=True)
        sys.exit(1)
    except OSError as error:
        message = f"{error.filename or 'a file of --project'}: {error.strerror or error}"
        click.echo(f"error: {printable_line(message)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    run()

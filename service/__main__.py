"""python -m service run | health: serve bundles, or check that a server is serving."""

import atexit
import gc
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C during the imports ends without a traceback; a running server drains.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import asyncio
from pathlib import Path
from typing import Any

from labelmint.extras import name_missing_extra

if __name__ == "__main__":
    name_missing_extra("serve")
    atexit.register(gc.freeze)  # no search for garbage at the end, a fifth of a short command

import click
import grpc

from service.config import Config
from service.errors import StartError
from service.flags import config_from_flags, option, takes_server_flags
from service.loading import exit_process
from service.logs import set_up_logging
from service.process import keep_freed_memory, serve_until_signal

EXIT_FAILURE = 1
HEALTH_TIMEOUT_S = 5.0
_READ = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Serve labeled samples from bundles over gRPC."""


@main.command()
@takes_server_flags
def run(**flags: Any) -> None:
    """Run a server until SIGTERM.

    Prints one line on standard output when the server is ready. On SIGTERM, open streams end such
    that clients can resume them at another server.
    """
    config = config_from_flags(flags)
    set_up_logging(flags["log_format"], flags["log_level"])
    keep_freed_memory()
    try:
        asyncio.run(serve_until_signal(config, lambda line: click.echo(line)))
    except StartError as error:
        click.echo(f"error: {error}", err=True)
        exit_process(EXIT_FAILURE)


@main.command()
@option("--target", default=Config.listen, metavar="HOST:PORT", help="Address of the server.")
@option(
    "--tls-authorities",
    type=_READ,
    help="PEM file of CA certificates to verify the server with. Implies TLS.",
)
@option(
    "--tls-client-certificate",
    type=_READ,
    help="PEM file with the client certificate to show (mutual TLS). Needs --tls-client-key.",
)
@option(
    "--tls-client-key",
    type=_READ,
    help="PEM file with the private key of the client certificate.",
)
def health(target: str, **files: Path | None) -> None:
    """Check that a server is ready to serve.

    Prints its gRPC health status. Exits with 0 if it is SERVING, else with 1.
    """
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with _channel_to(target, **files) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_TIMEOUT_S)
        except grpc.RpcError as error:
            click.echo(f"{target}: {error.code().name} {error.details()}", err=True)
            sys.exit(EXIT_FAILURE)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    click.echo(f"{target}: {status}")
    sys.exit(0 if answer.status == health_pb2.HealthCheckResponse.SERVING else EXIT_FAILURE)


def _channel_to(
    target: str,
    tls_authorities: Path | None,
    tls_client_certificate: Path | None,
    tls_client_key: Path | None,
) -> grpc.Channel:
    files = (tls_authorities, tls_client_key, tls_client_certificate)
    if bool(tls_client_certificate) != bool(tls_client_key):  # gRPC would abort the process
        raise click.UsageError(
            "mutual TLS needs both --tls-client-certificate and --tls-client-key"
        )
    if not any(files):
        return grpc.insecure_channel(target)
    contents = [path.read_bytes() if path else None for path in files]
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(*contents))


if __name__ == "__main__":
    main()

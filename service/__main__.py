"""python -m service run | health: serve bundles, or ask a server whether it serves."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import grpc

from service.config import Config, Limits, NamedBundle, TlsFiles
from service.errors import StartError
from service.logs import set_up_logging
from service.process import keep_freed_memory, serve_until_signal

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_FAILURE = 1
HEALTH_TIMEOUT_S = 5.0


@click.group()
def main() -> None:
    """Serves labelled samples from bundles over gRPC."""


def _option(flag: str, **settings: Any) -> Callable[[Command], Command]:
    """An option with its environment twin, LABELMINT_SERVER_ and the flag's name."""
    twin = "LABELMINT_SERVER_" + flag.lstrip("-").replace("-", "_").upper()
    return click.option(flag, envvar=twin, show_envvar=True, show_default=True, **settings)


def _bundles(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> Any:
    bundles = []
    for value in values:
        name, equals, path = value.rpartition("=")
        folder = Path(path)
        bundles.append(NamedBundle(name if equals else folder.resolve().name, folder))
    names = [bundle.name for bundle in bundles]
    for name in names:
        if not name or names.count(name) > 1:
            raise click.BadParameter(f"the name {name!r} must be given and unique; use NAME=DIR")
    return tuple(bundles)


def _address(context: click.Context, option: click.Parameter, value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, with a port from 0 to 65535")
    return value


def _batch_sizes(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    words = [word for word in value.split(",") if word]
    if not all(word.isdigit() for word in words):
        raise click.BadParameter(f"{value!r} is no list of sizes, such as 1,8")
    return tuple(int(word) for word in words)


_FILE = click.Path(dir_okay=False, path_type=Path)
_READ = click.Path(exists=True, dir_okay=False, path_type=Path)
_LIMIT = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=0)
_DEFAULT = Limits()


@main.command()
@_option(
    "--bundle",
    multiple=True,
    callback=_bundles,
    metavar="[NAME=]DIR",
    help="A bundle to serve; its name is the folder's unless given. May be repeated.",
)
@_option(
    "--watch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A directory of bundles: each folder that appears is served under its name, one that is "
    "replaced by renaming is swapped, one that goes is unloaded. May be empty.",
)
@_option(
    "--watch-interval",
    type=click.FloatRange(min=0.1),
    default=5.0,
    help="Seconds between two looks at that directory.",
)
@_option(
    "--listen",
    default="127.0.0.1:50051",
    callback=_address,
    metavar="HOST:PORT",
    help="Port 0 takes any free one.",
)
@_option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="HTTP port of /metrics, /healthz and /readyz; 0 takes any free one, absent: none.",
)
@_option(
    "--engine",
    type=click.Choice(["onnxruntime", "fake"]),
    default="onnxruntime",
    help="What runs the bundle; fake computes arrays from latents alone.",
)
@_option(
    "--batch-size",
    default="",
    callback=_batch_sizes,
    metavar="N[,N...]",
    help="Fixed engine batch sizes, ascending; absent: the engine's own choice.",
)
@_option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    help="Threads of one engine run; 0 takes one per core.",
)
@_option(
    "--batch-delay",
    type=_SECONDS,
    default=0.0,
    help="Seconds that an engine batch which is not full waits for more rows.",
)
@_option(
    "--drain-delay",
    type=_SECONDS,
    default=0.0,
    help="Seconds from not ready to ending streams, for load balancers to notice.",
)
@_option(
    "--drain-grace",
    type=_SECONDS,
    default=10.0,
    help="Seconds that ended calls have for their last message.",
)
@_option(
    "--model-drain",
    type=_SECONDS,
    default=30.0,
    help="Seconds that streams of a replaced or unloaded model go on; then they end resumably.",
)
@_option("--tls-certificate", type=_FILE, help="PEM certificate and its chain; needs --tls-key.")
@_option("--tls-key", type=_FILE, help="PEM key of that certificate, not encrypted.")
@_option(
    "--tls-client-authorities",
    type=_FILE,
    help="Mutual TLS: clients must show a certificate from one of these PEM authorities.",
)
@_option(
    "--token-file",
    type=_FILE,
    help="Callers must send a bearer token of this file, a line NAME TOKEN each.",
)
@_option(
    "--admin-token-file",
    type=_FILE,
    help="Callers with a bearer token of this file, a line NAME TOKEN each, may load and unload "
    "models by RepositoryModelLoad and RepositoryModelUnload; absent: nobody may.",
)
@_option(
    "--otlp-endpoint",
    metavar="URL",
    help="Send traces there over OTLP/gRPC; OTEL_* variables set sampling and headers.",
)
@_option("--log-format", type=click.Choice(["text", "json"]), default="text")
@_option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@_option(
    "--max-streams",
    type=_LIMIT,
    default=_DEFAULT.max_streams,
    help="Calls that are open at a time.",
)
@_option(
    "--max-client-streams",
    type=_LIMIT,
    default=_DEFAULT.max_client_streams,
    help="Those of one client: a token, a client certificate's name, or an address.",
)
@_option(
    "--max-client-requests-per-s",
    type=click.FloatRange(min=0),
    default=_DEFAULT.max_client_requests_per_s,
    help="Calls a second of one client; 0: any number.",
)
@_option(
    "--max-inflight-samples",
    type=_LIMIT,
    default=_DEFAULT.max_inflight_samples,
    help="Samples that are drawn and not yet sent, in all.",
)
@_option(
    "--max-client-inflight-samples",
    type=_LIMIT,
    default=_DEFAULT.max_client_inflight_samples,
    help="Those of one client.",
)
@_option(
    "--max-inflight-bytes",
    type=_LIMIT,
    default=_DEFAULT.max_inflight_bytes,
    help="Bytes of those samples and of latents that callers bring.",
)
@_option(
    "--max-message-bytes",
    type=click.IntRange(min=4096),
    default=_DEFAULT.max_message_bytes,
    help="Largest response message a caller may ask for.",
)
@_option(
    "--max-message-samples",
    type=_LIMIT,
    default=_DEFAULT.max_message_samples,
    help="Samples of the largest response message.",
)
@_option(
    "--max-weight",
    type=_LIMIT,
    default=_DEFAULT.max_weight,
    help="Largest share a stream may ask for, relative to one of weight 1.",
)
@_option(
    "--max-request-bytes",
    type=_LIMIT,
    default=_DEFAULT.max_request_bytes,
    help="Largest request message.",
)
@_option(
    "--max-explicit-rows",
    type=_LIMIT,
    default=_DEFAULT.max_explicit_rows,
    help="Rows of latents in one request.",
)
@_option(
    "--max-explicit-indices",
    type=_LIMIT,
    default=_DEFAULT.max_explicit_indices,
    help="Explicit indices in one request.",
)
@_option(
    "--max-generate-examined",
    type=_LIMIT,
    default=_DEFAULT.max_generate_examined,
    help="Indices one GenerateSamples call examines.",
)
def run(**flags: Any) -> None:
    """Serves bundles until SIGTERM; streams then end so that clients can resume elsewhere."""
    config = _config_from_flags(flags)
    set_up_logging(flags["log_format"], flags["log_level"])
    keep_freed_memory()
    try:
        asyncio.run(serve_until_signal(config, lambda line: click.echo(line)))
    except StartError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILURE)


@main.command()
@_option("--target", default="127.0.0.1:50051", metavar="HOST:PORT", help="The server to ask.")
@_option("--tls-authorities", type=_READ, help="TLS: PEM authorities to trust the server by.")
@_option("--tls-client-certificate", type=_READ, help="Mutual TLS: PEM certificate to show.")
@_option("--tls-client-key", type=_READ, help="Mutual TLS: PEM key of that certificate.")
def health(target: str, **files: Path | None) -> None:
    """Exits 0 when the server at TARGET serves, 1 when it does not."""
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
    if not any(files):
        return grpc.insecure_channel(target)
    contents = [path.read_bytes() if path else None for path in files]
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(*contents))


def _config_from_flags(flags: dict[str, Any]) -> Config:
    if not flags["bundle"] and flags["watch"] is None:
        raise click.UsageError("there is nothing to serve; give --bundle or --watch")
    limits = Limits(**{name: flags[name] for name in Limits.__dataclass_fields__})
    return Config(
        bundles=flags["bundle"],
        listen=flags["listen"],
        metrics_port=flags["metrics_port"],
        runtime=flags["engine"],
        batch_sizes=flags["batch_size"],
        threads=flags["threads"],
        batch_delay_s=flags["batch_delay"],
        drain_delay_s=flags["drain_delay"],
        drain_grace_s=flags["drain_grace"],
        tls=_tls_from_flags(flags),
        token_file=flags["token_file"],
        otlp_endpoint=flags["otlp_endpoint"],
        admin_token_file=flags["admin_token_file"],
        watch=flags["watch"],
        watch_interval_s=flags["watch_interval"],
        model_drain_s=flags["model_drain"],
        limits=limits,
    )


def _tls_from_flags(flags: dict[str, Any]) -> TlsFiles | None:
    certificate, key = flags["tls_certificate"], flags["tls_key"]
    authorities = flags["tls_client_authorities"]
    if certificate is None and key is None and authorities is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError("TLS needs both --tls-certificate and --tls-key")
    return TlsFiles(certificate, key, authorities)


if __name__ == "__main__":
    main()

"""The flags of `service run`, each with its environment twin, and the Config they make."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from engines.engine_cache import DEFAULT_CACHE
from engines.flags import PRECISIONS, batch_sizes_from_flag
from engines.open import RUNTIMES, GpuOptions, Runtime
from service.config import Config, Limits, NamedBundle, TlsFiles
from service.folder import MODEL_NAME

Command = TypeVar("Command", bound=Callable[..., Any])


def option(flag: str, **settings: Any) -> Callable[[Command], Command]:
    """An option with its environment twin, LABELMINT_SERVER_ and the flag's name."""
    twin = "LABELMINT_SERVER_" + flag.lstrip("-").replace("-", "_").upper()
    if isinstance(settings.get("type"), click.FloatRange):
        settings.setdefault("callback", _refuse_nan)
    return click.option(flag, envvar=twin, show_envvar=True, show_default=True, **settings)


def _refuse_nan(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    if value != value:  # which no range refuses
        raise click.BadParameter("nan is not a number", context, parameter)
    return value


def takes_server_flags(command: Command) -> Command:
    """Gives a command every flag that `config_from_flags` reads, and those of the log."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def config_from_flags(flags: dict[str, Any]) -> Config:
    """Raises click.UsageError for flags that exclude or need each other."""
    if not flags["bundle"] and flags["watch"] is None:
        raise click.UsageError("there is nothing to serve; give --bundle or --watch")
    limits = Limits(**{name: flags[name] for name in Limits.__dataclass_fields__})
    return Config(
        bundles=flags["bundle"],
        listen=flags["listen"],
        metrics_port=flags["metrics_port"],
        **engine_config(flags),
        threads=flags["threads"],
        batch_delay_s=flags["batch_delay"],
        max_stream_age_s=flags["max_stream_age"],
        drain_delay_s=flags["drain_delay"],
        drain_grace_s=flags["drain_grace"],
        tls=_tls_from_flags(flags),
        token_file=flags["token_file"],
        otlp_endpoint=flags["otlp_endpoint"],
        shared_memory=flags["shared_memory"],
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
        if not MODEL_NAME.fullmatch(name):
            raise click.BadParameter(
                f"{name!r} is no name of a model: letters, digits, _ . and -; use NAME=DIR"
            )
    return tuple(bundles)


def _address(context: click.Context, option: click.Parameter, value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, with a port from 0 to 65535")
    return value


def _age(context: click.Context, option: click.Parameter, value: float) -> float:
    if value != 0 and not MIN_STREAM_AGE_S <= value <= MAX_STREAM_AGE_S:
        raise click.BadParameter(
            f"{value:g} is not {MIN_STREAM_AGE_S} to {MAX_STREAM_AGE_S} seconds, nor 0 for no end"
        )
    return value


def _url(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.startswith(("http://", "https://")):
        raise click.BadParameter(f"{value!r} is not http://HOST:PORT, or https:// for TLS")
    return value


MIN_STREAM_AGE_S, MAX_STREAM_AGE_S = 1, 86_400  # resuming more often would cost throughput


def engine_config(flags: dict[str, Any]) -> dict[str, Any]:
    """Fields of the Config."""
    return {
        "runtime": flags["engine"][0],
        "fallbacks": flags["engine"][1:],
        "precision": flags["precision"],
        "batch_sizes": flags["batch_size"],
        "gpu": GpuOptions(
            devices=flags["gpu"],
            contexts=flags["engine_contexts"],
            cache=flags["engine_cache"],
            build=flags["build_engine"],
        ),
    }


def _runtimes(context: click.Context, option: click.Parameter, value: str) -> tuple[Runtime, ...]:
    chosen: list[Runtime] = []
    for word in value.split(","):
        known = [runtime for runtime in RUNTIMES if runtime == word]
        if not known or known[0] in chosen:
            raise click.BadParameter(f"{word!r} is not one of {', '.join(RUNTIMES)}, each once")
        chosen += known
    return tuple(chosen)


def _numbers(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    words = value.split(",")
    if not all(word.isdigit() for word in words) or len(set(words)) < len(words):
        raise click.BadParameter(f"{value!r} is no list of numbers, such as 0,1, each once")
    return tuple(int(word) for word in words)


ENGINE_FLAGS: tuple[Callable[[Any], Any], ...] = (
    option(
        "--engine",
        default="onnxruntime",
        callback=_runtimes,
        metavar="NAME[,NAME...]",
        help=f"What runs the bundle: {', '.join(RUNTIMES)}; fake computes arrays from latents "
        "alone. Where it cannot be had, the next one of the list is taken, and a metric says so.",
    ),
    option(
        "--precision",
        type=click.Choice(list(PRECISIONS)),
        callback=lambda context, option, value: PRECISIONS.get(value),
        help="Which graph of the bundle; absent: fp16 on a GPU where there is one, else fp32.",
    ),
    option(
        "--engine-cache",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_CACHE,
        help="Folder of TensorRT's engines, which `python -m export engine` builds.",
    ),
    option(
        "--build-engine",
        is_flag=True,
        help="Build a TensorRT engine that is not there; the first start then takes minutes.",
    ),
    option(
        "--gpu",
        default="0",
        callback=_numbers,
        metavar="N[,N...]",
        help="The driver's numbers of the GPUs; one server may use several.",
    ),
    option(
        "--engine-contexts",
        type=click.IntRange(1, 8),
        default=GpuOptions().contexts,
        help="Engines on each GPU: copies of one overlap with the computing of another.",
    ),
    option(
        "--batch-size",
        default="",
        callback=batch_sizes_from_flag,
        metavar="N[,N...]",
        help="Fixed engine batch sizes, ascending; absent: the engine's own choice.",
    ),
)


_FILE = click.Path(dir_okay=False, path_type=Path)
_LIMIT = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=0)
_DEFAULT = Limits()
_FLAGS: tuple[Callable[[Any], Any], ...] = (
    option(
        "--bundle",
        multiple=True,
        callback=_bundles,
        metavar="[NAME=]DIR",
        help="A bundle to serve; its name is the folder's unless given. May be repeated.",
    ),
    option(
        "--watch",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="A directory of bundles: each folder that appears is served under its name, one that "
        "is replaced by renaming is swapped, one that goes is unloaded. May be empty.",
    ),
    option(
        "--watch-interval",
        type=click.FloatRange(min=0.1),
        default=5.0,
        help="Seconds between two looks at that directory.",
    ),
    option(
        "--listen",
        default="127.0.0.1:50051",
        callback=_address,
        metavar="HOST:PORT",
        help="Port 0 takes any free one.",
    ),
    option(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        help="HTTP port of /metrics, /healthz and /readyz; 0 takes any free one, absent: none.",
    ),
    *ENGINE_FLAGS,
    option(
        "--threads",
        type=click.IntRange(min=0),
        default=0,
        help="Threads of one engine run; 0 takes one per core.",
    ),
    option(
        "--batch-delay",
        type=_SECONDS,
        default=0.0,
        help="Seconds that an engine batch which is not full waits for more rows.",
    ),
    option(
        "--max-stream-age",
        type=float,
        default=0.0,
        callback=_age,
        help="Seconds, a tenth more or less, that a stream stays at this server: then it ends at a "
        "message, for its client to go on at any replica; 0: no end.",
    ),
    option(
        "--drain-delay",
        type=_SECONDS,
        default=0.0,
        help="Seconds from not ready to ending streams, for load balancers to notice.",
    ),
    option(
        "--drain-grace",
        type=_SECONDS,
        default=10.0,
        help="Seconds that ended calls have for their last message.",
    ),
    option(
        "--model-drain",
        type=_SECONDS,
        default=30.0,
        help="Seconds that streams of a replaced or unloaded model go on; then they end resumably.",
    ),
    option("--tls-certificate", type=_FILE, help="PEM certificate and its chain; needs --tls-key."),
    option("--tls-key", type=_FILE, help="PEM key of that certificate, not encrypted."),
    option(
        "--tls-client-authorities",
        type=_FILE,
        help="Mutual TLS: clients must show a certificate from one of these PEM authorities.",
    ),
    option(
        "--token-file",
        type=_FILE,
        help="Callers must send a bearer token of this file, a line NAME TOKEN each.",
    ),
    option(
        "--shared-memory",
        is_flag=True,
        help="Let clients on this host take messages through memory of theirs.",
    ),
    option(
        "--admin-token-file",
        type=_FILE,
        help="Callers with a bearer token of this file, a line NAME TOKEN each, may load and "
        "unload models by RepositoryModelLoad and RepositoryModelUnload; absent: nobody may.",
    ),
    option(
        "--otlp-endpoint",
        callback=_url,
        metavar="URL",
        help="Send traces there over OTLP/gRPC; OTEL_* variables set sampling and headers.",
    ),
    option("--log-format", type=click.Choice(["text", "json"]), default="text"),
    option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info"),
    option(
        "--max-streams",
        type=_LIMIT,
        default=_DEFAULT.max_streams,
        help="Calls that are open at a time.",
    ),
    option(
        "--max-client-streams",
        type=_LIMIT,
        default=_DEFAULT.max_client_streams,
        help="Those of one client: a token, a client certificate's name, or an address.",
    ),
    option(
        "--max-client-requests-per-s",
        type=click.FloatRange(min=0),
        default=_DEFAULT.max_client_requests_per_s,
        help="Calls a second of one client; 0: any number.",
    ),
    option(
        "--max-inflight-samples",
        type=_LIMIT,
        default=_DEFAULT.max_inflight_samples,
        help="Samples that are drawn and not yet sent, in all.",
    ),
    option(
        "--max-client-inflight-samples",
        type=_LIMIT,
        default=_DEFAULT.max_client_inflight_samples,
        help="Those of one client.",
    ),
    option(
        "--max-inflight-bytes",
        type=_LIMIT,
        default=_DEFAULT.max_inflight_bytes,
        help="Bytes of those samples and of latents that callers bring.",
    ),
    option(
        "--max-message-bytes",
        type=click.IntRange(min=4096),
        default=_DEFAULT.max_message_bytes,
        help="Largest response message a caller may ask for.",
    ),
    option(
        "--max-message-samples",
        type=_LIMIT,
        default=_DEFAULT.max_message_samples,
        help="Samples of the largest response message.",
    ),
    option(
        "--max-weight",
        type=_LIMIT,
        default=_DEFAULT.max_weight,
        help="Largest share a stream may ask for, relative to one of weight 1.",
    ),
    option(
        "--max-request-bytes",
        type=_LIMIT,
        default=_DEFAULT.max_request_bytes,
        help="Largest request message.",
    ),
    option(
        "--max-explicit-rows",
        type=_LIMIT,
        default=_DEFAULT.max_explicit_rows,
        help="Rows of latents in one request.",
    ),
    option(
        "--max-explicit-indices",
        type=_LIMIT,
        default=_DEFAULT.max_explicit_indices,
        help="Explicit indices in one request.",
    ),
    option(
        "--max-generate-examined",
        type=_LIMIT,
        default=_DEFAULT.max_generate_examined,
        help="Indices one GenerateSamples call examines.",
    ),
)

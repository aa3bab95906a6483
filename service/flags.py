"""The flags of `python -m service run`, each with an environment variable -> Config.

A flag's parameter has the name of the Config or ServerLimits field that it sets, and the field's
default. Flags that set several fields, or one together, have callbacks or are combined below.
"""

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from engines.flags import PRECISIONS, batch_sizes_from_flag
from engines.open import RUNTIMES, GpuOptions, Runtime
from service.config import (
    MIN_MESSAGE_BYTES,
    MODEL_NAME,
    Config,
    NamedBundle,
    ServerLimits,
    TlsFiles,
)

# Shorter ages would cost throughput, because streams would spend their time resuming.
MIN_STREAM_AGE_S, MAX_STREAM_AGE_S = 1, 86_400

Command = TypeVar("Command", bound=Callable[..., Any])


def takes_server_flags(command: Command) -> Command:
    """Adds all flags of `run` to a command."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def config_from_flags(flags: dict[str, Any]) -> Config:
    """Raises click.UsageError for flags that exclude or need each other."""
    if not flags["bundles"] and flags["watch"] is None:
        raise click.UsageError("there is nothing to serve; give --bundle or --watch")
    port = flags["metrics_port"]
    if port and flags["listen"].rpartition(":")[2] == str(port):
        raise click.UsageError(f"--metrics-port {port} is the port of --listen; give another")
    same_name = {field.name for field in fields(Config)} & flags.keys()
    runtime, *fallbacks = flags["engine"]
    return Config(
        **{name: flags[name] for name in same_name},
        runtime=runtime,
        fallbacks=tuple(fallbacks),
        gpu=GpuOptions(
            devices=flags["gpu_devices"],
            contexts=flags["engine_contexts"],
            cache=flags["engine_cache"],
            build=flags["build_engine"],
            builder_optimization_level=flags["builder_optimization_level"],
        ),
        tls=_tls_from_flags(flags),
        limits=ServerLimits(**{name: flags[name] for name in _LIMITS}),
    )


def option(flag: str, *name: str, **settings: Any) -> Callable[[Command], Command]:
    """click.option that also reads the environment variable LABELMINT_SERVER_<FLAG>.

    `name` is the parameter's name, if it differs from the flag's.
    """
    variable = "LABELMINT_SERVER_" + flag.lstrip("-").replace("-", "_").upper()
    if isinstance(settings.get("type"), click.FloatRange):
        settings.setdefault("callback", _refuse_not_finite)
    has_default = settings.get("default") is not None or settings.get("is_flag", False)
    settings.setdefault("show_default", has_default or "none")
    return click.option(flag, *name, envvar=variable, show_envvar=True, **settings)


def _tls_from_flags(flags: dict[str, Any]) -> TlsFiles | None:
    certificate, key = flags["tls_certificate"], flags["tls_key"]
    authorities = flags["tls_client_authorities"]
    if certificate is None and key is None and authorities is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError("TLS needs both --tls-certificate and --tls-key")
    return TlsFiles(certificate, key, authorities)


def _refuse_not_finite(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    if value is not None and not math.isfinite(value):  # click's ranges let NaN through
        fault = "is not a number" if math.isnan(value) else "is not finite"
        raise click.BadParameter(f"{value} {fault}", context, parameter)
    return value


def _bundles(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Any:
    """("car=bundles/7",) -> (NamedBundle("car", Path("bundles/7")),)"""
    bundles = []
    for value in values:
        name, equals, path = value.rpartition("=")
        folder = Path(path)
        bundles.append(NamedBundle(name if equals else folder.resolve().name, folder))
    names = [bundle.name for bundle in bundles]
    for name in names:
        if not name or names.count(name) > 1:
            raise click.BadParameter(f"the name {name!r} is empty or used twice; use NAME=DIR")
        if not MODEL_NAME.fullmatch(name):
            raise click.BadParameter(
                f"{name!r} is not a model name: use letters, digits, _ . and -, at most 128; "
                "NAME=DIR gives another name than the folder's"
            )
    return tuple(bundles)


def _address(context: click.Context, parameter: click.Parameter, value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, with a port from 0 to 65535")
    return value


def _runtimes(
    context: click.Context, parameter: click.Parameter, value: str
) -> tuple[Runtime, ...]:
    """ "tensorrt,onnxruntime" -> ("tensorrt", "onnxruntime")"""
    chosen: list[Runtime] = []
    for word in value.split(","):
        known = [runtime for runtime in RUNTIMES if runtime == word]
        if not known or known[0] in chosen:
            raise click.BadParameter(f"{word!r} is not one of {', '.join(RUNTIMES)}, each once")
        chosen += known
    return tuple(chosen)


def _gpu_numbers(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """ "0,3" -> (0, 3)"""
    words = value.split(",")
    if not all(word.isdigit() for word in words) or len(set(words)) < len(words):
        raise click.BadParameter(f"{value!r} is not a list of different numbers, for example 0,1")
    return tuple(int(word) for word in words)


def _stream_age(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if value != 0 and not MIN_STREAM_AGE_S <= value <= MAX_STREAM_AGE_S:
        raise click.BadParameter(
            f"{value:g} is not {MIN_STREAM_AGE_S} to {MAX_STREAM_AGE_S} seconds, nor 0 for no limit"
        )
    return value


def _url(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.startswith(("http://", "https://")):
        raise click.BadParameter(f"{value!r} is not http://HOST:PORT, or https:// for TLS")
    return value


_FILE = click.Path(dir_okay=False, path_type=Path)
_SECONDS = click.FloatRange(min=0)

_MODEL_FLAGS = (
    option(
        "--bundle",
        "bundles",
        multiple=True,
        callback=_bundles,
        metavar="[NAME=]DIR",
        help="Bundle to serve, under NAME or, without it, the name of its folder. May be repeated.",
    ),
    option(
        "--watch",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Directory of bundles to serve under their folder names. New folders are loaded, "
        "replaced ones reloaded, removed ones unloaded. The directory may be empty.",
    ),
    option(
        "--watch-interval",
        "watch_interval_s",
        metavar="SECONDS",
        type=click.FloatRange(min=0.1),
        default=Config.watch_interval_s,
        help="Seconds between two checks of the --watch directory.",
    ),
    option(
        "--load-timeout",
        "load_timeout_s",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        default=Config.load_timeout_s,
        help="Seconds after which loading a model counts as failed. Other models are loaded "
        "meanwhile.",
    ),
    option(
        "--model-drain",
        "model_drain_s",
        metavar="SECONDS",
        type=_SECONDS,
        default=Config.model_drain_s,
        help="Seconds that open streams of a replaced or unloaded model may go on; then they end, "
        "such that clients can resume them.",
    ),
)

_NETWORK_FLAGS = (
    option(
        "--listen",
        default=Config.listen,
        callback=_address,
        metavar="HOST:PORT",
        help="Address to listen on. Port 0 takes any free port.",
    ),
    option(
        "--metrics-port",
        metavar="PORT",
        type=click.IntRange(0, 65535),
        show_default="no HTTP",
        help="HTTP port for /metrics, /healthz and /readyz. 0 takes any free port.",
    ),
    option(
        "--tls-certificate",
        type=_FILE,
        help="PEM file with the server's certificate and its chain; needs --tls-key. Without it "
        "connections are not encrypted.",
    ),
    option(
        "--tls-key",
        type=_FILE,
        help="PEM file with the unencrypted private key of --tls-certificate.",
    ),
    option(
        "--tls-client-authorities",
        type=_FILE,
        help="PEM file of CA certificates. Clients must show a certificate that one of them signed "
        "(mutual TLS).",
    ),
    option(
        "--token-file",
        type=_FILE,
        help="File of bearer tokens, one NAME TOKEN per line. Callers must send one of them; "
        "without the flag everybody may call. A file that is removed or emptied later revokes all "
        "tokens after 10 s.",
    ),
    option(
        "--admin-token-file",
        type=_FILE,
        help="File of bearer tokens, one NAME TOKEN per line, that allow loading and unloading "
        "models by RepositoryModelLoad and RepositoryModelUnload; without the file nobody may.",
    ),
    option(
        "--shared-memory",
        is_flag=True,
        help="Let clients on this host receive messages through shared memory.",
    ),
)

_ENGINE_FLAGS = (
    option(
        "--engine",
        default=Config.runtime,
        callback=_runtimes,
        metavar="NAME[,NAME...]",
        help=f"Runtime for the model: {', '.join(RUNTIMES)}. If it cannot be opened, the next one "
        "in the list is used, and a metric counts that. fake runs no graph: it derives synthetic "
        "samples from the latents.",
    ),
    option(
        "--precision",
        type=click.Choice(list(PRECISIONS)),
        callback=lambda context, parameter, value: PRECISIONS.get(value),
        show_default="fp16 on a GPU if the bundle has it, else fp32",
        help="Floating-point type of the bundle's graph to run.",
    ),
    option(
        "--engine-cache",
        type=click.Path(file_okay=False, path_type=Path),
        default=GpuOptions.cache,
        help="Folder of the TensorRT engines that `python -m export engine` builds.",
    ),
    option(
        "--build-engine",
        is_flag=True,
        help="Build a TensorRT engine that --engine-cache lacks; the first start then takes "
        "minutes.",
    ),
    option(
        "--builder-optimization-level",
        metavar="N",
        type=click.IntRange(0, 5),
        show_default="TensorRT's own, 3",
        help="Effort of --build-engine, from 0 (fast build) to 5 (fast kernels).",
    ),
    option(
        "--gpu",
        "gpu_devices",
        default=",".join(map(str, GpuOptions.devices)),
        callback=_gpu_numbers,
        metavar="N[,N...]",
        help="Numbers of the GPUs to use, as the driver counts them.",
    ),
    option(
        "--engine-contexts",
        metavar="N",
        type=click.IntRange(1, 8),
        default=GpuOptions.contexts,
        help="Engines per GPU. With two, one copies data while the other computes.",
    ),
    option(
        "--batch-size",
        "batch_sizes",
        default="",
        callback=batch_sizes_from_flag,
        show_default="the runtime's own",
        metavar="N[,N...]",
        help="Fixed batch sizes of engine runs in samples, ascending. Smaller batches are padded.",
    ),
    option(
        "--batch-delay",
        "batch_delay_s",
        metavar="SECONDS",
        type=_SECONDS,
        default=Config.batch_delay_s,
        help="Seconds that an engine batch which is not full waits for more samples.",
    ),
    option(
        "--threads",
        metavar="N",
        type=click.IntRange(min=0),
        default=Config.threads,
        help="Number of CPU threads of one engine run; 0: one per core.",
    ),
)

_STREAM_FLAGS = (
    option(
        "--max-stream-age",
        "max_stream_age_s",
        metavar="SECONDS",
        type=float,
        default=Config.max_stream_age_s,
        callback=_stream_age,
        help="Seconds, plus or minus 10%, after which a stream ends so that its client resumes at "
        "any replica; 0: no limit.",
    ),
    option(
        "--drain-delay",
        "drain_delay_s",
        metavar="SECONDS",
        type=_SECONDS,
        default=Config.drain_delay_s,
        help="Seconds between SIGTERM, when the server reports that it is not ready, and the end "
        "of its streams, for load balancers to notice.",
    ),
    option(
        "--drain-grace",
        "drain_grace_s",
        metavar="SECONDS",
        type=_SECONDS,
        default=Config.drain_grace_s,
        help="Seconds that calls have to deliver their last message after --drain-delay.",
    ),
)

_LOG_FLAGS = (
    option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="Format of log lines on standard error.",
    ),
    option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        help="Lowest level that is logged.",
    ),
    option(
        "--otlp-endpoint",
        callback=_url,
        metavar="URL",
        help="OTLP/gRPC endpoint to send traces to; without it there are none. The OTEL_* "
        "environment variables set sampling and headers.",
    ),
)

_LIMITS = {  # help of each flag, by field of ServerLimits
    "max_streams": "Maximum number of open StreamSamples and GenerateSamples calls.",
    "max_client_streams": "Maximum number of open calls of one client. A client is a token, else "
    "the name in a client certificate, else an address.",
    "max_client_requests_per_s": "Maximum number of calls per second of one client; 0: no limit.",
    "max_inflight_samples": "Maximum number of samples that are drawn and not yet sent.",
    "max_client_inflight_samples": "Maximum number of samples of one client that are drawn and not "
    "yet sent.",
    "max_inflight_bytes": "Maximum memory in bytes for samples that are drawn and not yet sent, "
    "and for the requests of open calls.",
    "max_message_bytes": "Maximum size in bytes of a response message that a client may ask for.",
    "max_message_samples": "Maximum number of samples in a response message.",
    "max_weight": "Maximum weight of a stream: its share of the engine, relative to other streams "
    "of its client.",
    "max_request_bytes": "Maximum size in bytes of a request message.",
    "max_receiving_bytes": "Maximum memory in bytes for requests that are being received. Divided "
    "by --max-request-bytes, it is the number of requests that are received at once; others wait.",
    "max_connection_streams": "Maximum number of open calls of one connection. gRPC clients wait "
    "before they open more.",
    "max_explicit_rows": "Maximum number of latent rows in a request.",
    "max_explicit_indices": "Maximum number of explicit indices in a request.",
    "max_generate_examined": "Maximum number of indices that a GenerateSamples call examines.",
}
# Types of the limits that are not whole numbers from 1.
_LIMIT_TYPES: dict[str, click.IntRange | click.FloatRange] = {
    "max_client_requests_per_s": click.FloatRange(min=0),
    "max_message_bytes": click.IntRange(min=MIN_MESSAGE_BYTES),
}
_LIMIT_FLAGS = tuple(
    option(
        "--" + name.replace("_", "-"),
        metavar="BYTES" if name.endswith("bytes") else "N",
        type=_LIMIT_TYPES.get(name, click.IntRange(min=1)),
        default=getattr(ServerLimits, name),
        help=text,
    )
    for name, text in _LIMITS.items()
)

_FLAGS = (
    *_MODEL_FLAGS, *_NETWORK_FLAGS, *_ENGINE_FLAGS, *_STREAM_FLAGS, *_LOG_FLAGS, *_LIMIT_FLAGS,
)  # fmt: skip

"""Everything the server can be told, as frozen values; `__main__` alone makes them."""

from dataclasses import dataclass, field
from pathlib import Path

from engines.open import GpuOptions, Precision, Runtime

# gRPC's default receive limit is 4 MiB for the whole message; room for what wraps ours.
DEFAULT_MESSAGE_BYTES = (4 << 20) - (16 << 10)
MIN_MESSAGE_BYTES = 4 << 10


@dataclass(frozen=True)
class ServerLimits:
    """What a request, and all requests together, may ask for."""

    max_streams: int = 256  # open StreamSamples and GenerateSamples calls
    max_client_streams: int = 256  # those of one client
    max_client_requests_per_s: float = 0.0  # calls of one client, 0: any number
    max_inflight_samples: int = 65_536  # drawn and not yet sent, all streams together
    max_client_inflight_samples: int = 65_536  # those of one client
    max_inflight_bytes: int = 1 << 30  # of those, and of latents that requests brought
    max_message_bytes: int = 16 << 20  # of one response
    max_message_samples: int = 4_096  # of one response
    max_weight: int = 16  # of one stream against another
    max_request_bytes: int = 64 << 20  # of one request, enforced by gRPC
    max_explicit_rows: int = 4_096  # rows of SampleQuery.latents
    max_explicit_indices: int = 65_536  # entries of SampleQuery.indices
    max_generate_examined: int = 65_536  # indices one GenerateSamples call examines


@dataclass(frozen=True)
class NamedBundle:
    """A bundle's folder and the model name it is served under."""

    name: str
    path: Path


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of the server's identity, read again when they change."""

    certificate: Path  # with the chain that leads to it
    key: Path
    client_authorities: Path | None = None  # clients must show a certificate from one of these


@dataclass(frozen=True)
class Config:
    """One server process."""

    bundles: tuple[NamedBundle, ...]
    listen: str = "127.0.0.1:50051"  # HOST:PORT, port 0: any free one
    metrics_port: int | None = None  # None: no HTTP, 0: any free one
    runtime: Runtime = "onnxruntime"
    fallbacks: tuple[Runtime, ...] = ()  # in this order, where the one before cannot be had
    precision: Precision | None = None  # None: float16 on a GPU where the bundle has it
    gpu: GpuOptions = field(default_factory=GpuOptions)
    batch_sizes: tuple[int, ...] = ()  # empty: the engine's own
    threads: int = 0  # of one engine run, 0: one per core
    batch_delay_s: float = 0.0  # that an engine batch which is not full waits for more rows
    max_stream_age_s: float = 0.0  # then a stream ends, to be resumed at any replica; 0: never
    drain_delay_s: float = 0.0  # between not ready and ending streams, for balancers to notice
    drain_grace_s: float = 10.0  # for clients to take their last message
    tls: TlsFiles | None = None  # None: plain text
    token_file: Path | None = None  # None: anybody may call
    otlp_endpoint: str | None = None  # where spans go, None: nowhere
    shared_memory: bool = False  # whether clients on this host may have their messages in theirs
    admin_token_file: Path | None = None  # None: nobody loads or unloads models by calls
    watch: Path | None = None  # each folder in it is a bundle, served under the folder's name
    watch_interval_s: float = 5.0  # between two looks at it
    model_drain_s: float = 30.0  # for streams of a model that was replaced or unloaded
    limits: ServerLimits = field(default_factory=ServerLimits)

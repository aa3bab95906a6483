"""Configuration of one server process, as frozen values that only `__main__` makes.

All defaults are here; service.flags shows them in `--help`.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from engines.open import GpuOptions, Runtime
from engines.protocol import Precision

MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
# Default size of a response message. By default gRPC clients receive 4 MiB for the whole message;
# 16 KiB are left for what wraps ours.
DEFAULT_MESSAGE_BYTES = (4 << 20) - (16 << 10)
MIN_MESSAGE_BYTES = 4 << 10


@dataclass(frozen=True)
class ServerLimits:
    """Upper limits for one request, for one client, and for all requests together."""

    max_streams: int = 256  # open StreamSamples and GenerateSamples calls
    max_client_streams: int = 256  # open calls of one client
    max_client_requests_per_s: float = 0.0  # calls per second of one client; 0: no limit
    max_inflight_samples: int = 65_536  # samples drawn and not yet sent, all streams together
    max_client_inflight_samples: int = 65_536  # samples drawn and not yet sent, one client
    max_inflight_bytes: int = 1 << 30  # memory of these samples and of latents in requests
    max_message_bytes: int = 16 << 20  # size of one response message
    max_message_samples: int = 4_096  # samples in one response message
    max_weight: int = 16  # weight of one stream; its client's others have 1 by default
    max_request_bytes: int = 64 << 20  # size of one request message, enforced by gRPC
    max_receiving_bytes: int = 512 << 20  # memory of requests that are being received
    max_connection_streams: int = 128  # open calls of one connection; others wait at the client
    max_explicit_rows: int = 4_096  # rows of SampleQuery.latents
    max_explicit_indices: int = 65_536  # entries of SampleQuery.indices
    max_generate_examined: int = 65_536  # indices that one GenerateSamples call examines


@dataclass(frozen=True)
class NamedBundle:
    """A bundle's folder and the model name it is served under."""

    name: str  # matches MODEL_NAME
    path: Path


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of the server's identity, read again when they change."""

    certificate: Path  # with its chain
    key: Path
    client_authorities: Path | None = None  # CAs, one of which must have signed each client's cert


@dataclass(frozen=True)
class Config:
    """Configuration of one server process."""

    bundles: tuple[NamedBundle, ...]
    listen: str = "127.0.0.1:50051"  # HOST:PORT; port 0: any free one
    metrics_port: int | None = None  # HTTP port; None: no HTTP, 0: any free one
    runtime: Runtime = "onnxruntime"
    fallbacks: tuple[Runtime, ...] = ()  # tried in this order when the runtime cannot be opened
    precision: Precision | None = None  # None: float16 on a GPU if the bundle has it, else float32
    gpu: GpuOptions = field(default_factory=GpuOptions)
    batch_sizes: tuple[int, ...] = ()  # of engine runs, ascending; empty: the runtime's default
    threads: int = 0  # CPU threads of one engine run; 0: one per core
    batch_delay_s: float = 0.0  # how long a batch that is not full waits for more rows
    max_stream_age_s: float = 0.0  # then a stream ends and can be resumed anywhere; 0: never
    drain_delay_s: float = 0.0  # from "not ready" to ending streams, for load balancers to notice
    drain_grace_s: float = 10.0  # for clients to receive the last message of a call
    tls: TlsFiles | None = None  # None: no encryption
    token_file: Path | None = None  # None: no token needed
    otlp_endpoint: str | None = None  # URL that receives traces; None: no traces
    shared_memory: bool = False  # whether clients on this host may receive messages in memory
    admin_token_file: Path | None = None  # None: models cannot be loaded or unloaded by calls
    watch: Path | None = None  # directory whose folders are bundles, served under their names
    watch_interval_s: float = 5.0  # between two checks of that directory
    load_timeout_s: float = 1800.0  # limit of one load; a TensorRT engine may have to be built
    model_drain_s: float = 30.0  # how long streams of a replaced or unloaded model go on
    limits: ServerLimits = field(default_factory=ServerLimits)

from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LatentSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LATENT_SOURCE_UNSPECIFIED: _ClassVar[LatentSource]
    LATENT_SOURCE_PHILOX: _ClassVar[LatentSource]
    LATENT_SOURCE_MT19937: _ClassVar[LatentSource]

class ViewMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VIEW_MODE_UNSPECIFIED: _ClassVar[ViewMode]
    VIEW_MODE_DRAWN: _ClassVar[ViewMode]
    VIEW_MODE_BANK: _ClassVar[ViewMode]
    VIEW_MODE_FIXED: _ClassVar[ViewMode]
    VIEW_MODE_RANDOM: _ClassVar[ViewMode]

class FilterMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILTER_MODE_UNSPECIFIED: _ClassVar[FilterMode]
    FILTER_MODE_NONE: _ClassVar[FilterMode]
    FILTER_MODE_KEEP_FRACTION: _ClassVar[FilterMode]
    FILTER_MODE_MAX_UNCERTAINTY: _ClassVar[FilterMode]

class Output(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_UNSPECIFIED: _ClassVar[Output]
    OUTPUT_IMAGE: _ClassVar[Output]
    OUTPUT_MASK: _ClassVar[Output]
    OUTPUT_KEYPOINTS: _ClassVar[Output]
    OUTPUT_DEPTH: _ClassVar[Output]
    OUTPUT_UNCERTAINTY: _ClassVar[Output]
    OUTPUT_UNCERTAINTY_MAP: _ClassVar[Output]
    OUTPUT_W: _ClassVar[Output]
    OUTPUT_VIEW: _ClassVar[Output]
    OUTPUT_CAMERA: _ClassVar[Output]
    OUTPUT_WEIGHT: _ClassVar[Output]

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_INT32: _ClassVar[DataType]

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_UNSPECIFIED: _ClassVar[Codec]
    CODEC_RAW: _ClassVar[Codec]
    CODEC_ZSTD: _ClassVar[Codec]
    CODEC_JPEG: _ClassVar[Codec]

class LatentSpace(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LATENT_SPACE_UNSPECIFIED: _ClassVar[LatentSpace]
    LATENT_SPACE_Z: _ClassVar[LatentSpace]
    LATENT_SPACE_W: _ClassVar[LatentSpace]
    LATENT_SPACE_W_PLUS: _ClassVar[LatentSpace]
LATENT_SOURCE_UNSPECIFIED: LatentSource
LATENT_SOURCE_PHILOX: LatentSource
LATENT_SOURCE_MT19937: LatentSource
VIEW_MODE_UNSPECIFIED: ViewMode
VIEW_MODE_DRAWN: ViewMode
VIEW_MODE_BANK: ViewMode
VIEW_MODE_FIXED: ViewMode
VIEW_MODE_RANDOM: ViewMode
FILTER_MODE_UNSPECIFIED: FilterMode
FILTER_MODE_NONE: FilterMode
FILTER_MODE_KEEP_FRACTION: FilterMode
FILTER_MODE_MAX_UNCERTAINTY: FilterMode
OUTPUT_UNSPECIFIED: Output
OUTPUT_IMAGE: Output
OUTPUT_MASK: Output
OUTPUT_KEYPOINTS: Output
OUTPUT_DEPTH: Output
OUTPUT_UNCERTAINTY: Output
OUTPUT_UNCERTAINTY_MAP: Output
OUTPUT_W: Output
OUTPUT_VIEW: Output
OUTPUT_CAMERA: Output
OUTPUT_WEIGHT: Output
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_FLOAT16: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_INT32: DataType
CODEC_UNSPECIFIED: Codec
CODEC_RAW: Codec
CODEC_ZSTD: Codec
CODEC_JPEG: Codec
LATENT_SPACE_UNSPECIFIED: LatentSpace
LATENT_SPACE_Z: LatentSpace
LATENT_SPACE_W: LatentSpace
LATENT_SPACE_W_PLUS: LatentSpace

class SamplingOptions(_message.Message):
    __slots__ = ("seed", "latent_source", "truncation_psi", "truncation_cutoff", "class_index", "views_per_object", "view_mode", "view", "edits")
    SEED_FIELD_NUMBER: _ClassVar[int]
    LATENT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_PSI_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_CUTOFF_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    VIEWS_PER_OBJECT_FIELD_NUMBER: _ClassVar[int]
    VIEW_MODE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    seed: int
    latent_source: LatentSource
    truncation_psi: float
    truncation_cutoff: int
    class_index: int
    views_per_object: int
    view_mode: ViewMode
    view: int
    edits: _containers.RepeatedCompositeFieldContainer[Edit]
    def __init__(self, seed: _Optional[int] = ..., latent_source: _Optional[_Union[LatentSource, str]] = ..., truncation_psi: _Optional[float] = ..., truncation_cutoff: _Optional[int] = ..., class_index: _Optional[int] = ..., views_per_object: _Optional[int] = ..., view_mode: _Optional[_Union[ViewMode, str]] = ..., view: _Optional[int] = ..., edits: _Optional[_Iterable[_Union[Edit, _Mapping]]] = ...) -> None: ...

class Edit(_message.Message):
    __slots__ = ("direction", "strength")
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    direction: str
    strength: float
    def __init__(self, direction: _Optional[str] = ..., strength: _Optional[float] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("mode", "keep_fraction", "max_uncertainty", "filter_sets", "where", "balance", "balance_classes", "keep_by", "proposal")
    MODE_FIELD_NUMBER: _ClassVar[int]
    KEEP_FRACTION_FIELD_NUMBER: _ClassVar[int]
    MAX_UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    FILTER_SETS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    BALANCE_CLASSES_FIELD_NUMBER: _ClassVar[int]
    KEEP_BY_FIELD_NUMBER: _ClassVar[int]
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    mode: FilterMode
    keep_fraction: float
    max_uncertainty: float
    filter_sets: bool
    where: str
    balance: _containers.RepeatedCompositeFieldContainer[BalanceTarget]
    balance_classes: bool
    keep_by: _containers.RepeatedScalarFieldContainer[str]
    proposal: str
    def __init__(self, mode: _Optional[_Union[FilterMode, str]] = ..., keep_fraction: _Optional[float] = ..., max_uncertainty: _Optional[float] = ..., filter_sets: bool = ..., where: _Optional[str] = ..., balance: _Optional[_Iterable[_Union[BalanceTarget, _Mapping]]] = ..., balance_classes: bool = ..., keep_by: _Optional[_Iterable[str]] = ..., proposal: _Optional[str] = ...) -> None: ...

class BalanceTarget(_message.Message):
    __slots__ = ("condition", "share")
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    condition: str
    share: float
    def __init__(self, condition: _Optional[str] = ..., share: _Optional[float] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("output", "dtype", "shape", "codec", "data", "offsets")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    output: Output
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    codec: Codec
    data: bytes
    offsets: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, output: _Optional[_Union[Output, str]] = ..., dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., codec: _Optional[_Union[Codec, str]] = ..., data: _Optional[bytes] = ..., offsets: _Optional[_Iterable[int]] = ...) -> None: ...

class SampleBatch(_message.Message):
    __slots__ = ("indices", "tensors")
    INDICES_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    indices: _containers.RepeatedScalarFieldContainer[int]
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, indices: _Optional[_Iterable[int]] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class ExplicitLatents(_message.Message):
    __slots__ = ("space", "rows")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    space: LatentSpace
    rows: Tensor
    def __init__(self, space: _Optional[_Union[LatentSpace, str]] = ..., rows: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class SampleQuery(_message.Message):
    __slots__ = ("model", "bundle_id", "sampling", "filter", "start_index", "end_index", "count", "shard_index", "num_shards", "indices", "latents", "outputs", "accept_codecs", "jpeg_quality", "max_message_bytes", "max_examined", "max_message_samples", "weight", "learned_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    START_INDEX_FIELD_NUMBER: _ClassVar[int]
    END_INDEX_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SHARD_INDEX_FIELD_NUMBER: _ClassVar[int]
    NUM_SHARDS_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_CODECS_FIELD_NUMBER: _ClassVar[int]
    JPEG_QUALITY_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_EXAMINED_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    LEARNED_ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    bundle_id: str
    sampling: SamplingOptions
    filter: Filter
    start_index: int
    end_index: int
    count: int
    shard_index: int
    num_shards: int
    indices: _containers.RepeatedScalarFieldContainer[int]
    latents: ExplicitLatents
    outputs: _containers.RepeatedScalarFieldContainer[Output]
    accept_codecs: _containers.RepeatedScalarFieldContainer[Codec]
    jpeg_quality: int
    max_message_bytes: int
    max_examined: int
    max_message_samples: int
    weight: int
    learned_id: str
    def __init__(self, model: _Optional[str] = ..., bundle_id: _Optional[str] = ..., sampling: _Optional[_Union[SamplingOptions, _Mapping]] = ..., filter: _Optional[_Union[Filter, _Mapping]] = ..., start_index: _Optional[int] = ..., end_index: _Optional[int] = ..., count: _Optional[int] = ..., shard_index: _Optional[int] = ..., num_shards: _Optional[int] = ..., indices: _Optional[_Iterable[int]] = ..., latents: _Optional[_Union[ExplicitLatents, _Mapping]] = ..., outputs: _Optional[_Iterable[_Union[Output, str]]] = ..., accept_codecs: _Optional[_Iterable[_Union[Codec, str]]] = ..., jpeg_quality: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_examined: _Optional[int] = ..., max_message_samples: _Optional[int] = ..., weight: _Optional[int] = ..., learned_id: _Optional[str] = ...) -> None: ...

class StreamSamplesRequest(_message.Message):
    __slots__ = ("query",)
    QUERY_FIELD_NUMBER: _ClassVar[int]
    query: SampleQuery
    def __init__(self, query: _Optional[_Union[SampleQuery, _Mapping]] = ...) -> None: ...

class StreamSamplesResponse(_message.Message):
    __slots__ = ("batch", "next_index", "discarded", "bundle_id", "applied", "learned_id")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    DISCARDED_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    LEARNED_ID_FIELD_NUMBER: _ClassVar[int]
    batch: SampleBatch
    next_index: int
    discarded: int
    bundle_id: str
    applied: int
    learned_id: str
    def __init__(self, batch: _Optional[_Union[SampleBatch, _Mapping]] = ..., next_index: _Optional[int] = ..., discarded: _Optional[int] = ..., bundle_id: _Optional[str] = ..., applied: _Optional[int] = ..., learned_id: _Optional[str] = ...) -> None: ...

class SharedMemory(_message.Message):
    __slots__ = ("pid", "fd", "slot_bytes", "slots", "nonce")
    PID_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    SLOT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    pid: int
    fd: int
    slot_bytes: int
    slots: int
    nonce: bytes
    def __init__(self, pid: _Optional[int] = ..., fd: _Optional[int] = ..., slot_bytes: _Optional[int] = ..., slots: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class StreamSharedSamplesRequest(_message.Message):
    __slots__ = ("query", "memory", "released")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    query: SampleQuery
    memory: SharedMemory
    released: int
    def __init__(self, query: _Optional[_Union[SampleQuery, _Mapping]] = ..., memory: _Optional[_Union[SharedMemory, _Mapping]] = ..., released: _Optional[int] = ...) -> None: ...

class StreamSharedSamplesResponse(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class GenerateSamplesRequest(_message.Message):
    __slots__ = ("query",)
    QUERY_FIELD_NUMBER: _ClassVar[int]
    query: SampleQuery
    def __init__(self, query: _Optional[_Union[SampleQuery, _Mapping]] = ...) -> None: ...

class GenerateSamplesResponse(_message.Message):
    __slots__ = ("batch", "next_index", "discarded", "bundle_id", "applied", "learned_id")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    DISCARDED_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    LEARNED_ID_FIELD_NUMBER: _ClassVar[int]
    batch: SampleBatch
    next_index: int
    discarded: int
    bundle_id: str
    applied: int
    learned_id: str
    def __init__(self, batch: _Optional[_Union[SampleBatch, _Mapping]] = ..., next_index: _Optional[int] = ..., discarded: _Optional[int] = ..., bundle_id: _Optional[str] = ..., applied: _Optional[int] = ..., learned_id: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model", "sampling", "keep_fraction")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    KEEP_FRACTION_FIELD_NUMBER: _ClassVar[int]
    model: str
    sampling: SamplingOptions
    keep_fraction: float
    def __init__(self, model: _Optional[str] = ..., sampling: _Optional[_Union[SamplingOptions, _Mapping]] = ..., keep_fraction: _Optional[float] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "max_uncertainty", "calibration")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MAX_UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    model: Model
    max_uncertainty: float
    calibration: Calibration
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., max_uncertainty: _Optional[float] = ..., calibration: _Optional[_Union[Calibration, _Mapping]] = ...) -> None: ...

class Calibration(_message.Message):
    __slots__ = ("thresholds_digest", "content_digest")
    THRESHOLDS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONTENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    thresholds_digest: str
    content_digest: str
    def __init__(self, thresholds_digest: _Optional[str] = ..., content_digest: _Optional[str] = ...) -> None: ...

class LabelClass(_message.Message):
    __slots__ = ("id", "name", "color")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    color: int
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., color: _Optional[int] = ...) -> None: ...

class Keypoint(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class SkeletonEdge(_message.Message):
    __slots__ = ("from_keypoint", "to_keypoint")
    FROM_KEYPOINT_FIELD_NUMBER: _ClassVar[int]
    TO_KEYPOINT_FIELD_NUMBER: _ClassVar[int]
    from_keypoint: int
    to_keypoint: int
    def __init__(self, from_keypoint: _Optional[int] = ..., to_keypoint: _Optional[int] = ...) -> None: ...

class Camera(_message.Message):
    __slots__ = ("azimuth_deg", "elevation_deg", "distance", "focal")
    AZIMUTH_DEG_FIELD_NUMBER: _ClassVar[int]
    ELEVATION_DEG_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    FOCAL_FIELD_NUMBER: _ClassVar[int]
    azimuth_deg: float
    elevation_deg: float
    distance: float
    focal: float
    def __init__(self, azimuth_deg: _Optional[float] = ..., elevation_deg: _Optional[float] = ..., distance: _Optional[float] = ..., focal: _Optional[float] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("confidence", "reviewed", "truncation_psi", "truncation_cutoff", "thresholds")
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    REVIEWED_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_PSI_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_CUTOFF_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    confidence: float
    reviewed: int
    truncation_psi: float
    truncation_cutoff: int
    thresholds: _containers.RepeatedCompositeFieldContainer[CertifiedThreshold]
    def __init__(self, confidence: _Optional[float] = ..., reviewed: _Optional[int] = ..., truncation_psi: _Optional[float] = ..., truncation_cutoff: _Optional[int] = ..., thresholds: _Optional[_Iterable[_Union[CertifiedThreshold, _Mapping]]] = ...) -> None: ...

class CertifiedThreshold(_message.Message):
    __slots__ = ("max_uncertainty", "upper_bound", "reviewed")
    MAX_UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    UPPER_BOUND_FIELD_NUMBER: _ClassVar[int]
    REVIEWED_FIELD_NUMBER: _ClassVar[int]
    max_uncertainty: float
    upper_bound: float
    reviewed: int
    def __init__(self, max_uncertainty: _Optional[float] = ..., upper_bound: _Optional[float] = ..., reviewed: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "bundle_id", "family", "outputs", "image_height", "image_width", "label_height", "label_width", "z_dim", "w_dim", "num_ws", "num_classes", "view_layers", "truncation_psi", "truncation_cutoff", "classes", "keypoints", "skeleton", "score_source", "max_batch_size", "engine", "licences", "calibrated", "refined", "view_bank", "predicates", "certificate", "balances", "proposals", "score_measure", "directions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_WIDTH_FIELD_NUMBER: _ClassVar[int]
    LABEL_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    LABEL_WIDTH_FIELD_NUMBER: _ClassVar[int]
    Z_DIM_FIELD_NUMBER: _ClassVar[int]
    W_DIM_FIELD_NUMBER: _ClassVar[int]
    NUM_WS_FIELD_NUMBER: _ClassVar[int]
    NUM_CLASSES_FIELD_NUMBER: _ClassVar[int]
    VIEW_LAYERS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_PSI_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_CUTOFF_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    SKELETON_FIELD_NUMBER: _ClassVar[int]
    SCORE_SOURCE_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    LICENCES_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    REFINED_FIELD_NUMBER: _ClassVar[int]
    VIEW_BANK_FIELD_NUMBER: _ClassVar[int]
    PREDICATES_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    BALANCES_FIELD_NUMBER: _ClassVar[int]
    PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    SCORE_MEASURE_FIELD_NUMBER: _ClassVar[int]
    DIRECTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    bundle_id: str
    family: str
    outputs: _containers.RepeatedScalarFieldContainer[Output]
    image_height: int
    image_width: int
    label_height: int
    label_width: int
    z_dim: int
    w_dim: int
    num_ws: int
    num_classes: int
    view_layers: int
    truncation_psi: float
    truncation_cutoff: int
    classes: _containers.RepeatedCompositeFieldContainer[LabelClass]
    keypoints: _containers.RepeatedCompositeFieldContainer[Keypoint]
    skeleton: _containers.RepeatedCompositeFieldContainer[SkeletonEdge]
    score_source: str
    max_batch_size: int
    engine: str
    licences: _containers.RepeatedScalarFieldContainer[str]
    calibrated: bool
    refined: bool
    view_bank: _containers.RepeatedCompositeFieldContainer[Camera]
    predicates: bool
    certificate: Certificate
    balances: bool
    proposals: _containers.RepeatedCompositeFieldContainer[Proposal]
    score_measure: str
    directions: _containers.RepeatedCompositeFieldContainer[Direction]
    def __init__(self, name: _Optional[str] = ..., bundle_id: _Optional[str] = ..., family: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[Output, str]]] = ..., image_height: _Optional[int] = ..., image_width: _Optional[int] = ..., label_height: _Optional[int] = ..., label_width: _Optional[int] = ..., z_dim: _Optional[int] = ..., w_dim: _Optional[int] = ..., num_ws: _Optional[int] = ..., num_classes: _Optional[int] = ..., view_layers: _Optional[int] = ..., truncation_psi: _Optional[float] = ..., truncation_cutoff: _Optional[int] = ..., classes: _Optional[_Iterable[_Union[LabelClass, _Mapping]]] = ..., keypoints: _Optional[_Iterable[_Union[Keypoint, _Mapping]]] = ..., skeleton: _Optional[_Iterable[_Union[SkeletonEdge, _Mapping]]] = ..., score_source: _Optional[str] = ..., max_batch_size: _Optional[int] = ..., engine: _Optional[str] = ..., licences: _Optional[_Iterable[str]] = ..., calibrated: bool = ..., refined: bool = ..., view_bank: _Optional[_Iterable[_Union[Camera, _Mapping]]] = ..., predicates: bool = ..., certificate: _Optional[_Union[Certificate, _Mapping]] = ..., balances: bool = ..., proposals: _Optional[_Iterable[_Union[Proposal, _Mapping]]] = ..., score_measure: _Optional[str] = ..., directions: _Optional[_Iterable[_Union[Direction, _Mapping]]] = ...) -> None: ...

class Estimate(_message.Message):
    __slots__ = ("value", "low", "high")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    value: float
    low: float
    high: float
    def __init__(self, value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class Proposal(_message.Message):
    __slots__ = ("name", "where", "truncation_psi", "truncation_cutoff", "class_index", "share", "generated_share", "gain", "effective", "examined", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_PSI_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_CUTOFF_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    GENERATED_SHARE_FIELD_NUMBER: _ClassVar[int]
    GAIN_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_FIELD_NUMBER: _ClassVar[int]
    EXAMINED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    where: str
    truncation_psi: float
    truncation_cutoff: int
    class_index: int
    share: Estimate
    generated_share: Estimate
    gain: Estimate
    effective: Estimate
    examined: Estimate
    digest: str
    def __init__(self, name: _Optional[str] = ..., where: _Optional[str] = ..., truncation_psi: _Optional[float] = ..., truncation_cutoff: _Optional[int] = ..., class_index: _Optional[int] = ..., share: _Optional[_Union[Estimate, _Mapping]] = ..., generated_share: _Optional[_Union[Estimate, _Mapping]] = ..., gain: _Optional[_Union[Estimate, _Mapping]] = ..., effective: _Optional[_Union[Estimate, _Mapping]] = ..., examined: _Optional[_Union[Estimate, _Mapping]] = ..., digest: _Optional[str] = ...) -> None: ...

class Direction(_message.Message):
    __slots__ = ("name", "changes", "truncation_psi", "truncation_cutoff", "class_index", "first_row", "end_row", "measured", "strengths", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_PSI_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_CUTOFF_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    FIRST_ROW_FIELD_NUMBER: _ClassVar[int]
    END_ROW_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    STRENGTHS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    changes: str
    truncation_psi: float
    truncation_cutoff: int
    class_index: int
    first_row: int
    end_row: int
    measured: int
    strengths: _containers.RepeatedCompositeFieldContainer[MeasuredEdit]
    digest: str
    def __init__(self, name: _Optional[str] = ..., changes: _Optional[str] = ..., truncation_psi: _Optional[float] = ..., truncation_cutoff: _Optional[int] = ..., class_index: _Optional[int] = ..., first_row: _Optional[int] = ..., end_row: _Optional[int] = ..., measured: _Optional[int] = ..., strengths: _Optional[_Iterable[_Union[MeasuredEdit, _Mapping]]] = ..., digest: _Optional[str] = ...) -> None: ...

class MeasuredEdit(_message.Message):
    __slots__ = ("strength", "share", "shown", "unchanged", "miou")
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    SHOWN_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    MIOU_FIELD_NUMBER: _ClassVar[int]
    strength: float
    share: Estimate
    shown: Estimate
    unchanged: Estimate
    miou: Estimate
    def __init__(self, strength: _Optional[float] = ..., share: _Optional[_Union[Estimate, _Mapping]] = ..., shown: _Optional[_Union[Estimate, _Mapping]] = ..., unchanged: _Optional[_Union[Estimate, _Mapping]] = ..., miou: _Optional[_Union[Estimate, _Mapping]] = ...) -> None: ...

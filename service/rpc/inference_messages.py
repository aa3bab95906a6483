"""Message classes of the Open Inference Protocol, made from inference.binpb (protos/generate.py).

They use their own descriptor pool. Generated modules would register the package `inference` in
protobuf's default pool, where Triton's client registers it too.
"""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from labelmint.v1 import label_service_pb2

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"


def pool_with_messages() -> DescriptorPool:
    """Descriptors of all services of this server, for gRPC reflection."""
    pool = DescriptorPool()
    for module in (health_pb2, reflection_pb2, label_service_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in _files():
        pool.AddSerializedFile(file)
    return pool


def _files() -> list[bytes]:
    data = Path(__file__).with_name("inference.binpb").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(data).file
    return [file.SerializeToString() for file in files]


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in _files():
        pool.AddSerializedFile(file)
    return pool


def _message(name: str) -> Any:  # a message class, unknown to type checkers
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


_POOL = _pool()
DATA_TYPES = _POOL.FindEnumTypeByName(f"{PACKAGE}.DataType").values_by_name

ServerLiveRequest = _message("ServerLiveRequest")
ServerLiveResponse = _message("ServerLiveResponse")
ServerReadyRequest = _message("ServerReadyRequest")
ServerReadyResponse = _message("ServerReadyResponse")
ServerMetadataRequest = _message("ServerMetadataRequest")
ServerMetadataResponse = _message("ServerMetadataResponse")
ModelReadyRequest = _message("ModelReadyRequest")
ModelReadyResponse = _message("ModelReadyResponse")
ModelMetadataRequest = _message("ModelMetadataRequest")
ModelMetadataResponse = _message("ModelMetadataResponse")
ModelConfigRequest = _message("ModelConfigRequest")
ModelConfigResponse = _message("ModelConfigResponse")
ModelStatisticsRequest = _message("ModelStatisticsRequest")
ModelStatisticsResponse = _message("ModelStatisticsResponse")
ModelInferRequest = _message("ModelInferRequest")
ModelInferResponse = _message("ModelInferResponse")
ModelStreamInferResponse = _message("ModelStreamInferResponse")
RepositoryIndexRequest = _message("RepositoryIndexRequest")
RepositoryIndexResponse = _message("RepositoryIndexResponse")
RepositoryModelLoadRequest = _message("RepositoryModelLoadRequest")
RepositoryModelLoadResponse = _message("RepositoryModelLoadResponse")
RepositoryModelUnloadRequest = _message("RepositoryModelUnloadRequest")
RepositoryModelUnloadResponse = _message("RepositoryModelUnloadResponse")

"""Certificates, tokens and callers that show them."""

import os
from pathlib import Path
from typing import Any

import trustme

from labelmint.v1 import label_service_pb2 as pb
from service.config import Config, TlsFiles

TOKENS = {"trainer": "t" * 20, "night-job": "n" * 20}
TWO = pb.GenerateSamplesRequest(query=pb.SampleQuery(count=2))


def write_identity(authority: trustme.CA, folder: Path, name: str = "localhost") -> TlsFiles:
    """A certificate and its key, replaced as a renewal does."""
    identity = authority.issue_cert(name, common_name=name)
    new = folder / "new"
    new.mkdir()
    identity.private_key_pem.write_to_path(str(new / "key.pem"))
    for blob in identity.cert_chain_pems:
        blob.write_to_path(str(new / "certificate.pem"), append=True)
    authority.cert_pem.write_to_path(str(new / "ca.pem"))
    for path in list(new.iterdir()):
        os.replace(path, folder / path.name)
    new.rmdir()
    return TlsFiles(folder / "certificate.pem", folder / "key.pem")


def config(**changes: Any) -> Config:
    return Config(bundles=(), listen="127.0.0.1:0", **changes)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)

"""PEM files -> server credentials that follow the files: a renewed certificate needs no restart."""

import logging
import ssl
from pathlib import Path
from typing import Any

import grpc

from service.config import TlsFiles
from service.errors import StartError
from service.folder import WatchedFiles

_log = logging.getLogger(__name__)


def credentials_from_files(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials of the files as they are at each handshake.

    Files that do not fit together are left alone, with a warning, until they do: a certificate
    and its key are rarely replaced in one step. Raises StartError when they do not at the start.
    """
    paths = [files.certificate, files.key]
    if files.client_authorities is not None:
        paths.append(files.client_authorities)
    watched = WatchedFiles(paths)
    watched.changed()
    try:
        initial = _configuration(files)
    except OSError as error:  # ssl.SSLError is one
        raise StartError(_problem(files, error)) from error

    def at_handshake() -> Any:  # None: go on with the last one, which gRPC's stubs do not know
        if not watched.changed():
            return None
        try:
            return _configuration(files)
        except OSError as error:
            _log.warning("the old certificate stays in use: %s", _problem(files, error))
            return None

    return grpc.dynamic_ssl_server_credentials(
        initial,
        at_handshake,
        require_client_authentication=files.client_authorities is not None,
    )


def _configuration(files: TlsFiles) -> "grpc.ServerCertificateConfiguration":
    """Raises OSError when a file cannot be read or is not what it should be."""
    _check(files)
    authorities = files.client_authorities
    return grpc.ssl_server_certificate_configuration(
        [(files.key.read_bytes(), files.certificate.read_bytes())],
        None if authorities is None else authorities.read_bytes(),
    )


def _check(files: TlsFiles) -> None:
    """gRPC takes any bytes and fails at the handshakes; the ssl module looks at them now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # An encrypted key would be asked for on the terminal.
    context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    if files.client_authorities is not None:
        context.load_verify_locations(files.client_authorities)


def _problem(files: TlsFiles, error: OSError) -> str:
    named: list[Path] = [files.certificate, files.key]
    if files.client_authorities is not None:
        named.append(files.client_authorities)
    reason = getattr(error, "reason", None) or error.strerror or "it is no PEM file"
    where = error.filename or ", ".join(map(str, named))
    return f"TLS files cannot be used: {where}: {reason}"

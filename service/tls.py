"""PEM files -> gRPC server credentials that are renewed when the files change."""

import logging
import ssl
from pathlib import Path
from typing import Any

import grpc

from bundle.files import opened_regular_file
from service.config import TlsFiles
from service.errors import StartError
from service.file_changes import WatchedFiles

_log = logging.getLogger(__name__)


def credentials_from_files(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that use the current content of the files at each handshake.

    A certificate and its key are rarely replaced in one step. While the files do not match, the
    old certificate stays in use and a warning is logged. Raises StartError if they do not match
    now.
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

    def at_handshake() -> Any:  # None keeps the current one, which gRPC's type stubs do not allow
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
    """Raises OSError when a file cannot be read or has other content."""
    authorities = files.client_authorities
    for path in (files.certificate, files.key, *([] if authorities is None else [authorities])):
        with opened_regular_file(path):  # OpenSSL would wait on a FIFO for ever
            pass
    _check(files)
    return grpc.ssl_server_certificate_configuration(
        [(files.key.read_bytes(), files.certificate.read_bytes())],
        None if authorities is None else authorities.read_bytes(),
    )


def _check(files: TlsFiles) -> None:
    """Checks the files with the ssl module; gRPC itself would accept any bytes and fail at every
    handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Without `password`, OpenSSL would ask for the password of an encrypted key on the terminal.
    context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    if files.client_authorities is not None:
        context.load_verify_locations(files.client_authorities)


def _problem(files: TlsFiles, error: OSError) -> str:
    named: list[Path] = [files.certificate, files.key]
    if files.client_authorities is not None:
        named.append(files.client_authorities)
    reason = getattr(error, "reason", None) or error.strerror or "it is not a PEM file"
    where = error.filename or ", ".join(map(str, named))
    return f"TLS files cannot be used: {where}: {reason}"

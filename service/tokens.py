"""Bearer tokens and their owners, from a file that is read again whenever it changes.

The file has one `NAME TOKEN` per line; blank lines and lines that begin with # are skipped.

A file that is gone, cannot be read or has no token revokes all tokens, after a short grace in
which another file may take its place. A file with a mistake in it changes nothing.
"""

import hashlib
import logging
import math
import re
import time
from pathlib import Path

from bundle.files import read_regular_file
from service.errors import StartError
from service.file_changes import WatchedFiles

MIN_TOKEN_CHARACTERS = 16
MAX_FILE_BYTES = 1 << 20
GRACE_S = 10.0  # for files that are replaced in two steps
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_log = logging.getLogger(__name__)


class Tokens:
    """The tokens of a file, by name; only their SHA-256 digests are kept in memory."""

    def __init__(self, path: Path, grace_s: float = GRACE_S) -> None:
        """Raises StartError when the file cannot be read or is malformed."""
        self._path, self._watched, self._grace_s = path, WatchedFiles([path]), grace_s
        self._revoked_at = math.inf  # when the grace ends, on time.monotonic's clock
        self._problem = ""  # why the file cannot be used; empty: it can
        self._watched.changed()
        try:
            self._names = _names_from_file(path)
        except _BadFile as error:
            raise StartError(str(error)) from error

    def name_of(self, token: str) -> str | None:
        """Name of the token's owner, or None.

        It takes as long with 10,000 tokens as with one. Digests are looked up, not compared in
        equal time: what a caller could learn from the time is about the digest of a guess, which
        says nothing about a token of random characters.
        """
        self._reload()
        if time.monotonic() >= self._revoked_at:
            return None
        return self._names.get(_digest(token))

    @property
    def unusable(self) -> bool:
        """Whether the file as it is now cannot be used."""
        self._reload()
        return bool(self._problem)

    def _reload(self) -> None:
        if not self._watched.changed():
            return
        try:
            self._names = _names_from_file(self._path)
        except _NoTokens as error:
            self._revoked_at = min(self._revoked_at, time.monotonic() + self._grace_s)
            if self._is_new(error):
                _log.warning("no token is valid from %g s from now on: %s", self._grace_s, error)
        except _BadFile as error:  # tokens that were revoked before stay revoked
            if self._is_new(error):
                _log.warning("the old tokens stay in use: %s", error)
        else:
            self._problem, self._revoked_at = "", math.inf

    def _is_new(self, error: Exception) -> bool:
        known, self._problem = self._problem, str(error)
        return self._problem != known


class _BadFile(Exception):
    """Why a token file cannot be used, in one line that contains no token."""


class _NoTokens(_BadFile):
    """The file is gone, cannot be read, or has no token."""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _names_from_file(path: Path) -> dict[bytes, str]:
    """Owner of each token, by the token's digest."""
    try:
        data = read_regular_file(path, MAX_FILE_BYTES)
        if len(data) > MAX_FILE_BYTES:
            raise _BadFile(f"token file {path} has over {MAX_FILE_BYTES} bytes; remove lines")
        lines = data.decode().splitlines()
    except OSError as error:
        raise _NoTokens(f"token file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _BadFile(f"token file {path} is not UTF-8 text") from error
    digests: dict[str, bytes] = {}  # by name
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, token = _parsed(path, number, line)
        if name in digests:
            raise _BadFile(
                f"token file {path}, line {number}: {name} already has a token; use another name"
            )
        digests[name] = _digest(token)
    if not digests:
        raise _NoTokens(f"token file {path} has no token; write lines of the form NAME TOKEN")
    names = {digest: name for name, digest in digests.items()}
    if len(names) < len(digests):
        raise _BadFile(f"token file {path} has the same token for two names; make them different")
    return names


def _parsed(path: Path, number: int, line: str) -> tuple[str, str]:
    words = line.split()
    where = f"token file {path}, line {number}"
    if len(words) != 2:
        raise _BadFile(f"{where} has {len(words)} words; it must have two, NAME TOKEN")
    name, token = words
    if not _NAME.fullmatch(name):
        raise _BadFile(f"{where}: the name must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
    if len(token) < MIN_TOKEN_CHARACTERS:
        raise _BadFile(
            f"{where}: the token has {len(token)} characters; it needs at least "
            f"{MIN_TOKEN_CHARACTERS}"
        )
    return name, token

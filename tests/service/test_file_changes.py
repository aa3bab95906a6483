"""Files that change are noticed, however little of their status does."""

import os
from pathlib import Path

from service.file_changes import WatchedFiles
from service.tokens import Tokens


def test_a_token_that_is_replaced_in_place_with_the_files_old_time_is_revoked(
    tmp_path: Path,
) -> None:
    """As by `rsync --inplace --times`, or a copy that keeps times on a used inode."""
    path = tmp_path / "tokens"
    path.write_text("trainer " + "a" * 20)
    tokens, before = Tokens(path), path.stat()
    assert tokens.name_of("a" * 20) == "trainer"
    with path.open("r+") as file:
        file.write("trainer " + "b" * 20)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino, before.st_size, before.st_mtime_ns,
    )  # fmt: skip
    assert tokens.name_of("a" * 20) is None
    assert tokens.name_of("b" * 20) == "trainer"


def test_a_changed_file_is_read_once_more_for_writes_in_the_same_tick(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    watched = WatchedFiles([path], settle_s=0.0)
    assert [watched.changed() for _ in range(4)] == [True, True, False, False]
    path.write_text("other")
    assert [watched.changed() for _ in range(4)] == [True, True, False, False]

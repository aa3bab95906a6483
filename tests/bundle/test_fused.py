"""fused.json is read whole or refused in one line, whatever is in it."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bundle.errors import FileError
from bundle.fused import (
    FUSED,
    Binary,
    Buffer,
    Fused,
    Kernel,
    Launch,
    Pointer,
    Program,
    fused_from_bytes,
    write_fused,
)

LAUNCH = Launch("k", (1, 2, 3), [Pointer("a", 16, 64), Pointer("t"), -5])
PROGRAM = Program({"k": Kernel("entry", {"N": 4}, 8, 2)}, {"k": Binary(256, 1024, 2)}, [LAUNCH])
GOOD = Fused(
    buffers={
        "a": Buffer("features", "float16", [4, 8]),
        "t": Buffer("scratch", "float32", [16]),
    },
    programs={"9.0": PROGRAM},
    compiler="triton 3.9.0",
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_fused(tmp_path, GOOD)
    assert fused_from_bytes((tmp_path / FUSED).read_bytes(), tmp_path / FUSED) == GOOD


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (Program(PROGRAM.kernels, {}, [LAUNCH]), "lacks the code of k"),
        (replace(PROGRAM, launches=[replace(LAUNCH, kernel="x")]), "launches 'x'"),
        *(
            (replace(PROGRAM, launches=[replace(LAUNCH, arguments=[pointer])]), words)
            for pointer, words in (
                (Pointer("b"), "'b', a buffer it lacks"),
                (Pointer("a", 64), "byte 64 of 'a'.* the buffer has 64"),
                (Pointer("a", 0, 32), "32 bytes from sample to sample"),
            )
        ),
    ],
)
def test_a_program_that_reaches_for_what_is_not_there_is_refused(
    tmp_path: Path, program: Program, words: str
) -> None:
    write_fused(tmp_path, replace(GOOD, programs={"9.0": program}))
    with pytest.raises(FileError, match=rf"for 9\.0 it .*{words}.*; export again") as caught:
        fused_from_bytes((tmp_path / FUSED).read_bytes(), tmp_path / FUSED)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_bytes_are_read_or_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    write_fused(tmp_path, GOOD)
    content = bytearray((tmp_path / FUSED).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    (tmp_path / FUSED).write_bytes(content)
    try:
        assert isinstance(
            fused_from_bytes((tmp_path / FUSED).read_bytes(), tmp_path / FUSED), Fused
        )
    except FileError as error:
        assert str(tmp_path) in str(error) and "\n" not in str(error)

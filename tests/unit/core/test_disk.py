from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from mlforge.core.disk import bytes_of, write_all


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (5 << 19) + 7])
def test_all_bytes_are_written_in_their_order(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    with (tmp_path / "file").open("wb") as file:
        write_all(file, content[:size])
    assert (tmp_path / "file").read_bytes() == content[:size]


def test_the_bytes_of_a_buffer_stay_when_it_is_closed() -> None:
    buffer = BytesIO()
    buffer.write(b"abc")
    content = bytes_of(buffer)
    buffer.close()
    assert content == b"abc"

"""Files with a checksum of themselves are whole, however they are written."""

from __future__ import annotations

import resource
from pathlib import Path

import polars as pl
import pytest

from mlforge.errors import StoreError
from mlforge.store.local import sealed_file
from mlforge.store.local.sealed_file import is_sealed, write_sealed


def test_a_large_file_has_the_bytes_of_one_that_is_encoded_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pl.DataFrame(
        {"key": range(3_000), "text": [f"é{number % 7}" for number in range(3_000)]}
    )
    for name, large in (("small", 1 << 30), ("large", 0)):
        monkeypatch.setattr(sealed_file, "_LARGE", large)
        write_sealed(tmp_path / name, rows, 1_000, {"about": "keys"})
        assert is_sealed(tmp_path / name)
    assert (tmp_path / "large").read_bytes() == (tmp_path / "small").read_bytes()


def test_a_large_file_that_the_disk_does_not_take_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed_file, "_LARGE", 0)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, usual[1]))
    try:
        with pytest.raises(StoreError, match="cannot write"):
            write_sealed(tmp_path / "rows", pl.DataFrame({"key": range(3_000)}), 1_000, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert not list(tmp_path.iterdir())

"""Folders to write files to that no source is to take in."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import polars as pl
import pytest

from mlforge import Definitions, feature
from mlforge.definitions.sources import check_output
from mlforge.errors import DefinitionError
from mlforge.store import LocalStore
from mlforge.training_sets.writing import part_name


@pytest.mark.parametrize(
    ("source", "out", "is_refused"),
    [
        ("data/", "data/set", True),
        ("data/", "data/elsewhere/../set", True),
        ("data/**/part-*.parquet", "data/set", True),
        ("data/**/day.parquet", "data/set", False),
        ("data/set/part-*.parquet", "data/set", False),
        ("data/", "sets", False),
        ("link/", "data/set", True),
        ("data/", "link/set", True),
        ("s3://shop/data/", "s3://shop/data/set", True),
        ("s3://shop/data/set/part-*.parquet", "s3://shop/data/set", False),
        ("s3://shop/data/", "s3://shop/sets", False),
    ],
)
def test_a_training_set_lies_in_no_source_but_one_that_means_it(
    source: str, out: str, is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @feature(keys=["user_id"], source=source)
    def person(df: pl.DataFrame) -> pl.DataFrame:
        return df

    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("link").symlink_to("data")
    definitions = Definitions(LocalStore("store"), [person], root=tmp_path)
    with pytest.raises(DefinitionError, match="lies in the") if is_refused else nullcontext():
        check_output(definitions, out, part_name(0), may_be_source=True)

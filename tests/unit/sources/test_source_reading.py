"""Files read once for all features of a source."""

from __future__ import annotations

import os
import time
from pathlib import Path

import polars as pl
import pytest

from mlforge.core.disk import hash_file
from mlforge.errors import UnreadableFile
from mlforge.sources import file_bytes, source_reading
from mlforge.sources.source_file import SourceFile
from mlforge.sources.source_reading import SETTLED_NS, SourceReading

FRAME = pl.DataFrame({"user_id": [1, 2], "amount": [1.5, 2.5]})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The nanoseconds that readings are given for now, ahead of the machine's by as many as the test says."""
    ahead = [0]
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + ahead[0])
    return ahead


def written(folder: Path, frame: pl.DataFrame = FRAME, name: str = "a.parquet") -> SourceFile:
    frame.write_parquet(folder / name)
    return SourceFile.under(folder, name)


def test_a_settled_file_is_opened_once(tmp_path, clock, monkeypatch):
    file, reading = written(tmp_path), SourceReading()
    clock[0] = 2 * SETTLED_NS
    first = reading.read(file)
    monkeypatch.setattr(file_bytes, "read_bytes", None)
    monkeypatch.setattr(file_bytes, "hash_and_stat", None)
    second = reading.read(file)
    assert second.content.frame.equals(first.content.frame)
    assert second.file == first.file
    assert reading.hashed(file) == first.file
    assert first.file.hash == first.content.hash


def test_a_file_that_may_have_changed_unseen_is_opened_again_but_not_decoded(tmp_path, clock):
    file, reading = written(tmp_path), SourceReading()
    clock[0] = -SETTLED_NS
    early = reading.read(file)
    assert not early.file.is_settled
    clock[0] = 2 * SETTLED_NS
    late = reading.read(file)
    assert late.file.is_settled
    assert late.file.begun > early.file.begun
    assert reading.decoded == 1


def test_a_change_that_its_stat_does_not_show_is_seen_until_the_stat_has_settled(tmp_path, clock):
    file, reading = written(tmp_path), SourceReading()
    clock[0] = -SETTLED_NS
    reading.read(file)
    other = written(tmp_path, FRAME.with_columns(amount=pl.Series([7.5, 8.5])))
    same = file._replace(stat=file.stat)
    assert other.stat.size == same.stat.size, "else the stat would show it"
    assert reading.read(same).content.frame["amount"].to_list() == [7.5, 8.5]
    assert reading.hashed(same).hash == hash_file(other.absolute)


@pytest.mark.parametrize("small_bytes", [0, 1 << 20], ids=["hashed alone", "read"])
def test_a_file_that_lay_in_another_s_place_while_it_was_read_is_not_taken_for_that(
    tmp_path, clock, monkeypatch, small_bytes
):
    monkeypatch.setattr(source_reading, "SMALL_BYTES", small_bytes)
    (tmp_path / "one").mkdir()
    file, reading = written(tmp_path / "one"), SourceReading()
    (tmp_path / "one").rename(tmp_path / "aside")
    (tmp_path / "one").mkdir()
    other = written(tmp_path / "one", FRAME.with_columns(amount=pl.Series([7.5, 8.5])))
    clock[0] = 2 * SETTLED_NS
    first = reading.hashed(file)
    assert first.hash == hash_file(other.absolute)
    assert not first.is_settled
    (tmp_path / "one").rename(tmp_path / "two")
    (tmp_path / "aside").rename(tmp_path / "one")
    assert SourceFile.under(tmp_path / "one", "a.parquet") == file, "else the stat would show it"
    assert reading.read(file).content.frame.equals(FRAME)
    assert reading.hashed(file).is_settled


def test_a_file_with_another_stat_is_read_again(tmp_path, clock):
    file, reading = written(tmp_path), SourceReading()
    clock[0] = 2 * SETTLED_NS
    reading.read(file)
    os.utime(file.absolute, ns=(1, 1))
    changed = SourceFile.under(tmp_path, file.path)
    written(tmp_path, FRAME.head(1))
    assert reading.read(changed).content.frame.height == 1


def test_files_of_one_content_are_decoded_once(tmp_path):
    reading = SourceReading()
    files = [written(tmp_path, name=name) for name in ("a.parquet", "b.parquet")]
    contents = [reading.read(file).content for file in files]
    assert contents[0].hash == contents[1].hash
    assert [content.stat for content in contents] == [file.stat for file in files]
    assert reading.decoded == 1


def test_a_function_that_changes_its_frame_changes_no_other_feature_s(tmp_path):
    file, reading = written(tmp_path), SourceReading()
    for _ in range(2):
        frame = reading.read(file).content.frame
        assert frame.equals(FRAME)
        frame.insert_column(0, pl.Series("mine", [1, 2]))
        frame.replace_column(1, pl.Series("user_id", [0, 0]))
        frame.drop_in_place("amount")


def test_contents_beyond_the_room_are_read_again_and_not_kept(tmp_path):
    size = int(FRAME.estimated_size())
    reading = SourceReading(keep_bytes=size + size // 2)
    files = [
        written(tmp_path),
        written(tmp_path, FRAME.with_columns(amount=pl.lit(0.0)), "b.parquet"),
    ]
    for _ in range(2):
        assert [reading.read(file).content.frame["amount"].sum() for file in files] == [4.0, 0.0]
    assert reading.decoded == 3


def test_a_file_that_cannot_be_read_is_refused_to_each_feature(tmp_path):
    file, reading = written(tmp_path), SourceReading()
    file.absolute.write_bytes(b"PAR1 and no more")
    broken = SourceFile.under(tmp_path, file.path)
    for _ in range(2):
        with pytest.raises(UnreadableFile, match=r"a\.parquet: is unfinished"):
            reading.read(broken)

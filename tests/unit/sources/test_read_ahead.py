"""Files that are read before they are asked for: what is read of them, what is left to who asks, and what is never begun."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlforge.core import child
from mlforge.errors import UnreadableFile
from mlforge.sources import decoded_files, parquet_reader, read_ahead, sandbox
from mlforge.sources.read_ahead import ReadAhead, Wishes
from mlforge.sources.reading_process import ReadingProcess
from mlforge.sources.source_file import SourceFile
from mlforge.sources.source_reading import SourceReading

ALL = Wishes(lambda file: True, lambda hash_: True)
FIRST = replace(ALL, are_first=True)


def frame(number: int) -> pl.DataFrame:
    return pl.DataFrame({"user_id": [number, number + 1], "text": [f"é{number}", None]})


@pytest.fixture
def files(tmp_path: Path) -> list[SourceFile]:
    """More files than a run holds, two of them alike, with damaged and odd ones between them."""
    for number in range(40):
        frame(number).write_parquet(tmp_path / f"{number:02}.parquet")
    frame(7).write_parquet(tmp_path / "08.parquet")
    frame(0).clear().write_parquet(tmp_path / "09.parquet")
    (tmp_path / "11.parquet").write_bytes(b"PAR1 and nothing more PAR1")
    whole = (tmp_path / "12.parquet").read_bytes()
    (tmp_path / "13.parquet").write_bytes(whole + whole)
    frame(14).with_columns(text=pl.lit(None)).write_parquet(tmp_path / "14.parquet")
    frame(15).with_columns(pl.col("text").cast(pl.Categorical)).write_parquet(
        tmp_path / "15.parquet"
    )
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    pq.write_table(twice, tmp_path / "17.parquet")
    return [SourceFile.under(tmp_path, path.name) for path in sorted(tmp_path.iterdir())]


def outcome(read: Callable[[SourceFile], object], file: SourceFile) -> object:
    try:
        return read(file)
    except UnreadableFile as error:
        return str(error)


def content(reading: SourceReading, file: SourceFile) -> object:
    hashed = reading.hashed(file)
    content = reading.read(file).content
    rows = content.frame
    return hashed.hash, hashed.opened, rows.schema, rows.rows(), rows.n_chunks(), content.left_out


def contents_ahead(files: list[SourceFile], wishes: Wishes) -> dict[str, object]:
    reading = SourceReading(keep_bytes=0)
    with reading.ahead(files, wishes) as in_turn:
        return {f.path: outcome(lambda file: content(reading, file), f) for f in in_turn}


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[ReadingProcess]:
    """Whichever processes read files ahead, as they do from few files on."""
    started: list[ReadingProcess] = []
    start = ReadingProcess.__init__

    def noted(process: ReadingProcess) -> None:
        start(process)
        started.append(process)

    monkeypatch.setattr(ReadingProcess, "__init__", noted)
    monkeypatch.setattr(read_ahead, "_VERY_MANY_FILES", 1)
    return started


@pytest.mark.parametrize("long_rows", [decoded_files._LONG_ROWS, 0])
def test_a_reading_gives_the_same_whether_or_not_it_reads_ahead(
    files: list[SourceFile],
    processes: list[ReadingProcess],
    monkeypatch: pytest.MonkeyPatch,
    long_rows: int,
) -> None:
    monkeypatch.setattr(decoded_files, "_LONG_ROWS", long_rows)
    alone = SourceReading(keep_bytes=0)
    expected = {f.path: outcome(lambda file: content(alone, file), f) for f in files}
    assert contents_ahead(files, ALL) == expected
    assert not processes, "something is known of some files"
    assert contents_ahead(files, FIRST) == expected
    assert len(processes) == 2
    assert all(process.has_ended for process in processes)


def test_files_that_processes_were_to_read_are_read_here_once_the_processes_have_ended(
    files: list[SourceFile], processes: list[ReadingProcess]
) -> None:
    expected = contents_ahead(files, ALL)
    reading, found = SourceReading(keep_bytes=0), dict[str, object]()
    with reading.ahead(files, FIRST) as in_turn:
        for file in in_turn:
            if not found:
                for process in processes:
                    process._process.kill()
                    process._process.wait()
            found[file.path] = outcome(lambda file: content(reading, file), file)
    assert found == expected


def test_files_are_read_here_where_no_process_can_be_started(
    files: list[SourceFile], processes: list[ReadingProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child.sys, "executable", "/nowhere/python")
    assert contents_ahead(files, FIRST) == contents_ahead(files, ALL)
    assert not processes


def test_files_that_are_not_tiny_are_read_by_no_process(
    files: list[SourceFile], processes: list[ReadingProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[SourceFile] = []
    monkeypatch.setattr(ReadingProcess, "ask", lambda _, some, most: bool(asked.extend(some)))
    largest = max(file.stat.size for file in files)
    monkeypatch.setattr(read_ahead, "_TINY_BYTES", largest - 1)
    assert contents_ahead(files, FIRST) == contents_ahead(files, ALL)
    assert 0 < len(asked) < len(files)
    assert all(file.stat.size < largest for file in asked)
    monkeypatch.setattr(read_ahead, "_VERY_MANY_FILES", len(files))
    assert contents_ahead(files, FIRST) == contents_ahead(files, ALL)
    assert len(processes) == 2, "those of before"


def test_a_process_ends_with_whoever_asks_it(
    files: list[SourceFile],
) -> None:
    process = ReadingProcess()
    assert process.ask(files[:2], None)
    [both] = process.answer()
    assert [raw.path for raw in both.files] == ["00.parquet", "01.parquet"]
    process._requests.close()
    assert process._process.wait(timeout=60) == 0
    process._answers.close()


@pytest.mark.parametrize("output", [b"", b"3\n", b"[[1]]\n", b"hello\n", b"[[[]], [9]]\nshort"])
def test_output_that_is_no_answer_ends_a_process(files: list[SourceFile], output: bytes) -> None:
    process = ReadingProcess()
    assert process.ask(files[:2], None)
    process._answers.close()
    process._answers = BytesIO(output)
    assert process.answer() == []
    assert process.has_ended


def test_no_request_waits_for_a_process_that_takes_none(files: list[SourceFile]) -> None:
    long = [file._replace(path=file.path + "x" * 4_000) for file in files[:16]]
    process = ReadingProcess()
    try:
        os.kill(process._process.pid, signal.SIGSTOP)
        asked = [process.ask(long, None) for _ in range(20)]
        assert True in asked
        assert asked == sorted(asked, reverse=True)
        assert not asked[-1]
    finally:
        process.close()


def test_good_files_are_decoded_before_they_are_asked_for(
    files: list[SourceFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    decode = parquet_reader.decode
    monkeypatch.setattr(
        parquet_reader, "decode", lambda raw, *a, **k: (asked.append(raw.path), decode(raw, *a, **k))[1]
    )  # fmt: skip
    reading = SourceReading(keep_bytes=0)
    with reading.ahead(files, ALL) as in_turn:
        for file in in_turn:
            outcome(reading.read, file)
    assert asked == ["08.parquet", "11.parquet", "13.parquet"], "alike, or at fault"


def test_only_what_is_wished_for_is_read(files: list[SourceFile]) -> None:
    odd = Wishes(lambda file: int(file.path[:2]) % 2 == 1, lambda hash_: hash_[0] in "01234567")
    ahead, seen = ReadAhead(files, odd), 0
    for file in ahead:
        early = ahead.take(file)
        assert (early is not None) == (int(file.path[:2]) % 2 == 1), file.path
        if early is not None and early.content is not None:
            assert early.raw.hash[0] in "01234567"
            seen += 1
        assert ahead.take(file) is None, "it was taken"
    assert seen


def test_a_file_that_changed_after_it_was_read_ahead_is_read_again(files: list[SourceFile]) -> None:
    reading = SourceReading(keep_bytes=0)
    with reading.ahead(files, ALL) as in_turn:
        first = next(iter(in_turn))
        frame(99).write_parquet(first.absolute)
        now = SourceFile.under(first.absolute.parent, first.path)
        assert reading.read(now).content.frame.rows() == frame(99).rows()


def test_nothing_is_read_beside_a_large_file(
    files: list[SourceFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = files[20]
    monkeypatch.setattr(read_ahead, "_RUN_BYTES", large.stat.size - 1)
    small = [f for f in files if f.stat.size < large.stat.size]
    assert len(small) > 1
    order = [*small, large, *small]
    read: list[str] = []
    wishes = Wishes(lambda file: not read.append(file.path), lambda hash_: False)
    ahead = ReadAhead(order, wishes)
    for count, file in enumerate(ahead):
        if file is large:
            assert len(read) == count
            assert ahead.take(file) is None
    assert len(read) == 2 * len(small)


def test_few_files_are_read_when_they_are_asked_for(files: list[SourceFile]) -> None:
    ahead = ReadAhead(files[:3], ALL)
    assert [ahead.take(file) for file in ahead] == [None] * 3


def test_a_file_that_claims_much_memory_is_not_decoded_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded_files, "_DECODED_BYTES", 1_000_000)
    for number in range(5):
        height = 200_000 if number == 2 else 10
        pl.DataFrame({"x": [number] * height}).write_parquet(tmp_path / f"{number}.parquet")
    files = [SourceFile.under(tmp_path, f"{number}.parquet") for number in range(5)]
    ahead = ReadAhead(files, ALL)
    early = [ahead.take(file) for file in ahead]
    assert [each is not None and each.content is not None for each in early] == [
        True, True, False, True, True,
    ]  # fmt: skip


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_DATA"), reason="a system without this limit")
def test_a_lower_limit_takes_no_memory_from_who_was_given_more() -> None:
    with sandbox.at_most(8 << 30):
        given = resource.getrlimit(resource.RLIMIT_DATA)
        with sandbox.at_most(1 << 20):
            assert resource.getrlimit(resource.RLIMIT_DATA) == given


def test_what_was_read_counts_no_more_once_the_block_has_ended(files: list[SourceFile]) -> None:
    reading = SourceReading(keep_bytes=0)
    with reading.ahead(files, ALL) as in_turn:
        assert next(iter(in_turn)) is files[0]
    files[3].absolute.unlink()
    with pytest.raises(UnreadableFile, match="is gone"):
        reading.read(files[3])

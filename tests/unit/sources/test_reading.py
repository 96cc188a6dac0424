"""Reading one file: all that is whole is read right, all else is an UnreadableFile and nothing worse."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import resource
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from mlforge.errors import UnreadableFile
from mlforge.sources import file_bytes, sandbox
from mlforge.sources.file_bytes import BeingWritten, hash_and_stat, is_being_written
from mlforge.sources.parquet_reader import completeness, read
from mlforge.sources.source_file import SourceFile
from tests.support.paths import DATA

ODD_FILES = DATA / "parquet-testing"
GIGABYTE = 1 << 30
# What those files are that must not read; the others must.
DAMAGED = {
    "ARROW-GH-41317.parquet",
    "ARROW-GH-41321.parquet",
    "ARROW-GH-45185.parquet",
    "ARROW-GH-47662.parquet",
    "ARROW-RS-GH-6229-DICTHEADER.parquet",
    "ARROW-RS-GH-6229-LEVELS.parquet",
    "PARQUET-1481.parquet",
    "datapage_v1-corrupt-checksum.parquet",
    "encrypt_columns_and_footer.parquet.encrypted",
    "incorrect_map_schema.parquet",
    "large_string_map.brotli.parquet",
    "repeated_no_annotation.parquet",
    "rle-dict-uncompressed-corrupt-checksum.parquet",
    "uniform_encryption.parquet.encrypted",
}


@pytest.fixture
def odd_files() -> dict[str, Path]:
    if not ODD_FILES.is_dir():
        pytest.skip("the collection of odd parquet files is not beside the checkout")
    return {path.name: path for path in sorted(ODD_FILES.glob("*data/*.parquet*"))}


def file_at(path: Path) -> SourceFile:
    return SourceFile.under(path.parent, path.name)


def written(path: Path, data: bytes) -> SourceFile:
    path.write_bytes(data)
    return file_at(path)


def parquet(table: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def column(array: pa.Array, tmp_path: Path, **options: object) -> pl.Series:
    table = pa.table({"x": array})
    return read(written(tmp_path / "x.parquet", parquet(table, **options))).frame["x"]


SMALL = pa.table({"id": [1, 2, 3], "name": ["a", "b", None], "amount": [1.5, None, -2.0]})


# What is read.


def test_rows_and_hash_are_of_the_same_bytes(tmp_path):
    frame = pl.from_arrow(SMALL)
    data = parquet(SMALL)
    file = written(tmp_path / "a.parquet", data)
    content = read(file)
    assert content.frame.equals(frame)
    assert content.frame.schema == frame.schema
    assert content.hash == hashlib.sha256(data).hexdigest() == hash_and_stat(file.absolute)[0]
    assert content.stat == file.stat


def test_a_file_of_polars_reads_as_polars_reads_it(tmp_path):
    frame = pl.DataFrame(
        {
            "i": pl.Series([1, None, 3], dtype=pl.UInt16),
            "s": ["a", None, "ü"],
            "e": pl.Series(["x", "y", None], dtype=pl.Enum(["x", "y"])),
            "c": pl.Series(["x", "y", None], dtype=pl.Categorical),
            "d": [Decimal("1.10"), None, Decimal("-3.00")],
            "t": pl.Series([0, 1, -1]).cast(pl.Datetime("ns", "Europe/Berlin")),
            "day": [date(2024, 1, 1), None, None],
            "n": pl.Series([None] * 3),
            "l": [[1], [], None],
            "o": [{"a": 1}, {"a": None}, None],
        }
    )
    path = tmp_path / "a.parquet"
    frame.write_parquet(path, row_group_size=2)
    assert read(file_at(path)).frame.equals(pl.read_parquet(path))
    assert read(file_at(path)).frame.schema == frame.schema


@pytest.mark.parametrize("zone", ["+05:30", "-02:15", "Z", "Nowhere/Atlantis"])
def test_zones_that_polars_does_not_know_become_utc(tmp_path, zone):
    read_back = column(pa.array([0, None], pa.timestamp("us", zone)), tmp_path)
    assert read_back.dtype == pl.Datetime("us", "UTC")
    assert read_back.to_list() == [datetime(1970, 1, 1, tzinfo=UTC), None]


def test_zones_that_polars_knows_are_kept_for_the_function(tmp_path):
    read_back = column(pa.array([0], pa.timestamp("us", "Asia/Tokyo")), tmp_path)
    assert read_back.dtype == pl.Datetime("us", "Asia/Tokyo")


def test_int96_beyond_the_range_of_nanoseconds_is_not_clamped(tmp_path):
    far = [datetime(9999, 12, 31, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)]
    array = pa.array(far, pa.timestamp("us"))
    read_back = column(array, tmp_path, use_deprecated_int96_timestamps=True)
    assert read_back.dt.replace_time_zone("UTC").to_list() == far


def test_wide_decimals_and_extension_types_come_in_types_that_polars_knows(tmp_path):
    wide = column(pa.array([Decimal("1.25"), None], pa.decimal256(50, 2)), tmp_path)
    assert wide.to_list() == [Decimal("1.25"), None]
    text = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}']))
    assert column(text, tmp_path).to_list() == ['{"a": 1}']


def test_a_file_without_rows_keeps_its_columns(tmp_path):
    frame = read(written(tmp_path / "a.parquet", parquet(SMALL.slice(0, 0)))).frame
    assert (frame.height, frame.columns) == (0, ["id", "name", "amount"])


# What is refused.


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"id,name\n1,a\n", "is not parquet"),
        (b"PAR1", "unfinished or cut off"),
        (b"PAR1" + bytes(100), "unfinished or cut off"),
        (
            b"PAR1" + bytes(100) + (5000).to_bytes(4, "little") + b"PAR1",
            "footer claims 5,000 bytes",
        ),
        (b"PARE" + bytes(100) + b"PARE", "is encrypted"),
        (parquet(SMALL)[:-1], "unfinished or cut off"),
    ],
)
def test_what_is_not_whole_is_told_without_decoding(tmp_path, data, says):
    file = written(tmp_path / "a.parquet", data)
    assert says in (completeness(file.absolute) or "")
    with pytest.raises(UnreadableFile, match=says):
        read(file)


def test_a_whole_file_is_complete_and_a_missing_one_is_gone(tmp_path):
    file = written(tmp_path / "a.parquet", parquet(SMALL))
    assert completeness(file.absolute) is None
    file.absolute.unlink()
    assert completeness(file.absolute) == "is gone"
    for reader in (lambda: read(file), lambda: hash_and_stat(file.absolute)[0]):
        with pytest.raises(UnreadableFile, match="is gone"):
            reader()


def test_a_pipe_that_took_a_files_place_does_not_block(tmp_path):
    file = written(tmp_path / "a.parquet", parquet(SMALL))
    file.absolute.unlink()
    os.mkfifo(file.absolute)
    with pytest.raises(UnreadableFile, match="not a regular file"):
        read(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.write_bytes(path.read_bytes() * 2),
        lambda path: os.truncate(path, 100),
    ],
    ids=["touched", "grown", "cut"],
)
def test_a_file_that_changes_while_it_is_read_is_refused(change, tmp_path, monkeypatch):
    file = written(tmp_path / "a.parquet", parquet(SMALL))
    check_writer = file_bytes._check_writer

    def change_then(descriptor: int, path: str) -> None:
        check_writer(descriptor, path)
        change(file.absolute)

    monkeypatch.setattr(file_bytes, "_check_writer", change_then)
    with pytest.raises(UnreadableFile, match="changed while it was read"):
        read(file)


def test_a_flipped_byte_in_a_page_is_noticed_where_pages_have_checksums(tmp_path):
    data = bytearray(
        parquet(
            pa.table({"x": list(range(1000))}),
            write_page_checksum=True,
            use_dictionary=False,
            compression="none",
        )
    )
    data[2000] ^= 1
    with pytest.raises(UnreadableFile, match="CRC checksum"):
        read(written(tmp_path / "a.parquet", bytes(data)))


def test_strings_that_are_not_utf8_are_refused(tmp_path):
    data = parquet(pa.table({"x": ["honest"] * 3}), compression="none").replace(
        b"honest", b"hone\xfft"
    )
    with pytest.raises(UnreadableFile, match="UTF8"):
        read(written(tmp_path / "a.parquet", data))


ZONED = pa.timestamp("us", "+05:30")
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
WIDE_DECIMAL = pa.decimal256(76, 38)


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array([Decimal("1.5"), None], WIDE_DECIMAL), [Decimal("1.5"), None]),
        (pa.array([[Decimal("1.5")]], pa.list_(WIDE_DECIMAL)), [[Decimal("1.5")]]),
        (
            pa.array([{"a": [{"d": Decimal("-2.25")}]}]).cast(
                pa.struct([("a", pa.list_(pa.struct([("d", WIDE_DECIMAL)])))])
            ),
            [{"a": [{"d": Decimal("-2.25")}]}],
        ),
        (pa.array([Decimal("123456789012345678901.5")], WIDE_DECIMAL), None),
        (pa.array([{"at": NOON}], pa.struct([("at", ZONED)])), [{"at": NOON}]),
        (pa.array([[NOON], None], pa.list_(ZONED)), [[NOON], None]),
        (pa.array([[NOON]], pa.list_(ZONED, 1)), [[NOON]]),
        (pa.array([[1, 2], []], pa.list_view(pa.int64())), [[1, 2], []]),
        (pa.array([[[1]], None], pa.large_list_view(pa.list_view(pa.int8()))), [[[1]], None]),
    ],
)
def test_types_that_polars_cannot_hold_are_mended_wherever_they_are(tmp_path, array, values):
    table = pa.table({"id": list(range(len(array))), "x": array})
    content = read(written(tmp_path / "a.parquet", parquet(table)))
    assert content.left_out == {}
    assert content.frame["id"].to_list() == list(range(len(array)))
    if values is not None:
        assert content.frame["x"].to_list() == values
    else:
        assert content.frame["x"][0] == array[0].as_py()


def test_a_column_that_polars_cannot_hold_costs_itself_alone(tmp_path):
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    both = pa.array([Decimal("0." + "1" * 30), Decimal("1" * 30)], WIDE_DECIMAL)
    table = pa.table(
        [pa.array([7, 8]), pa.array([1, 2]), pa.array([3, 4]), both, pa.chunked_array([twice] * 2)],
        names=["id", "x", "x", "d", "s"],
    )
    file = written(tmp_path / "a.parquet", parquet(table))
    for own in (False, True):
        content = read(file, in_own_process=own)
        assert content.frame.to_dict(as_series=False) == {"id": [7, 8]}
        assert set(content.left_out) == {"x", "d", "s"}
        assert "2 columns of that name" in content.left_out["x"]
        assert "decimal256(76, 38)" in content.left_out["d"]


@pytest.mark.parametrize(
    ("ids", "columns", "left_out"),
    [([4, 5, 6], ["v"], ["id"]), ([4, 5, 7], ["v", "id"], [])],
    ids=["a range", "no range"],
)
def test_an_index_of_pandas_that_the_file_holds_no_column_of_is_told(
    tmp_path, ids, columns, left_out
):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"id": ids, "v": 1.0}).set_index("id").to_parquet(path)
    content = read(file_at(path))
    assert content.frame.columns == columns
    assert [*content.left_out] == left_out
    assert all("df.reset_index()" in reason for reason in content.left_out.values())
    pd.DataFrame({"v": ids}).to_parquet(path)
    assert read(file_at(path)).left_out == {}


@pytest.mark.parametrize("in_own_process", [False, True])
def test_a_column_of_wide_integers_costs_itself_alone(tmp_path, in_own_process):
    wide = pl.lit(2**100, pl.Int128)
    frame = pl.DataFrame({"a": [1, None], "text": ["ARROW:schema", "x"]}).with_columns(
        lasted=pl.duration(hours=pl.col("a")),
        kind=pl.col("text").cast(pl.Categorical),
        at=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)).dt.convert_time_zone("Europe/Berlin"),
        several=pl.concat_list("a"),
    )
    with_wide = frame.with_columns(
        n=wide, m=pl.lit(7, pl.UInt128), s=pl.struct(k=wide), deep=pl.concat_list(pl.struct(k=wide))
    )
    file = tmp_path / "a.parquet"
    with_wide.write_parquet(file)
    content = read(file_at(file), in_own_process=in_own_process)
    assert content.frame.equals(frame)
    assert content.frame.schema == frame.schema
    assert content.left_out.keys() == {"n", "m", "s", "deep"}
    assert "128 bits; write it as Int64" in content.left_out["n"]


class _Keys(encryption.KmsClient):
    """Wraps keys by putting them behind another."""

    def wrap_key(self, key_bytes: bytes, _: str) -> str:
        return base64.b64encode(key_bytes).decode()

    def unwrap_key(self, wrapped_key: bytes, _: str) -> bytes:
        return base64.b64decode(wrapped_key)


def test_encrypted_columns_are_left_out_and_the_others_read(tmp_path):
    configuration = encryption.EncryptionConfiguration(
        footer_key="footer", column_keys={"column": ["name"]}, plaintext_footer=True
    )
    properties = encryption.CryptoFactory(lambda _: _Keys()).file_encryption_properties(
        encryption.KmsConnectionConfig(), configuration
    )
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, SMALL.schema, encryption_properties=properties) as writer:
        writer.write_table(SMALL)
    content = read(written(tmp_path / "a.parquet", buffer.getvalue()), max_bytes=GIGABYTE)
    assert content.frame.columns == ["id", "amount"]
    assert "encrypted" in content.left_out["name"]


def test_a_small_file_that_decodes_to_much_is_refused_before_it_is_decoded(tmp_path):
    text = written(tmp_path / "a.parquet", parquet(pa.table({"x": ["a" * 10_000_000]})))
    assert text.stat.size < 1_000_000
    with pytest.raises(UnreadableFile, match="more than the 1,000,000 allowed"):
        read(text, max_bytes=1_000_000)
    ones = written(tmp_path / "b.parquet", parquet(pa.table({"x": pa.repeat(1, 1_000_000)})))
    assert ones.stat.size < 10_000
    with pytest.raises(UnreadableFile, match="claims 8,000,000 bytes"):
        read(ones, max_bytes=1_000_000)
    assert read(ones, max_bytes=8_000_000).frame.height == 1_000_000


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_byte_anywhere_gives_rows_or_an_error_and_nothing_worse(tmp_path, step):
    data = parquet(SMALL, compression="none")
    path = tmp_path / "a.parquet"
    unreadable = 0
    for place in range(0, len(data), step):
        for value in (0x01, 0xFF):
            damaged = bytearray(data)
            damaged[place] = value
            try:
                str(read(written(path, bytes(damaged)), max_bytes=GIGABYTE).frame.rows())
            except UnreadableFile:
                unreadable += 1
    assert 0 < unreadable < 2 * len(data)


def test_a_file_that_somebody_writes_to_is_left_alone_until_it_is_closed(tmp_path):
    path = tmp_path / "a.parquet"
    with path.open("wb") as writing:
        writing.write(parquet(SMALL))
        writing.flush()
        assert is_being_written(path)
        for reader in (lambda: read(file_at(path)), lambda: hash_and_stat(path)):
            with pytest.raises(BeingWritten, match="is being written"):
                reader()
        an_hour_ago = time.time() - 3_600
        os.utime(path, (an_hour_ago, an_hour_ago))
        assert is_being_written(path), "its ctime tells that it was touched just now"
    assert not is_being_written(path)
    assert read(file_at(path)).frame.height == SMALL.num_rows
    with path.open("rb"):
        assert not is_being_written(path), "readers do no harm"
    assert not is_being_written(tmp_path / "gone.parquet")


def test_a_writer_that_forgot_a_file_does_not_keep_it(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    with path.open("wb") as forgotten:
        forgotten.write(parquet(SMALL))
        forgotten.flush()
        monkeypatch.setattr(file_bytes, "_ABANDONED_NS", 0)
        assert not is_being_written(path)
        assert read(file_at(path)).frame.height == SMALL.num_rows


def test_two_files_in_one_are_refused_and_a_text_that_looks_like_their_seam_is_not(tmp_path):
    whole = parquet(SMALL)
    with pytest.raises(UnreadableFile, match=f"second begins at byte {len(whole):,}"):
        read(written(tmp_path / "a.parquet", whole + whole))
    looks = parquet(pa.table({"x": ["PAR1PAR1"]}), compression="none")
    assert read(written(tmp_path / "b.parquet", looks)).frame["x"].to_list() == ["PAR1PAR1"]


@pytest.mark.slow
def test_a_file_may_be_decoded_in_a_process_of_its_own(tmp_path, monkeypatch):
    zoned = pa.table({"at": pa.array([0], pa.timestamp("us", "+05:30")), "x": ["a"]})
    good = written(tmp_path / "a.parquet", parquet(zoned))
    for _ in range(3):  # threads of the reader's are still there at the end, now and then
        assert read(good, in_own_process=True).frame.equals(read(good).frame)
    bad = written(tmp_path / "b.parquet", parquet(SMALL)[:-300] + parquet(SMALL)[-200:])
    with pytest.raises(UnreadableFile) as here:
        read(bad, GIGABYTE)
    with pytest.raises(UnreadableFile) as there:
        read(bad, GIGABYTE, in_own_process=True)
    assert str(there.value) == str(here.value)
    monkeypatch.setattr(sandbox.sys, "executable", "/bin/false")  # a process that just ends
    with pytest.raises(UnreadableFile, match=r"ends the process that decodes it \(exit code 1\)"):
        read(good, in_own_process=True)


def test_limits_of_memory_are_given_back_whoever_leaves_first():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    first, second = sandbox.at_most(1 << 20), sandbox.at_most(1 << 30)
    first.__enter__()
    limited = resource.getrlimit(resource.RLIMIT_DATA)
    assert limited != before
    second.__enter__()
    first.__exit__(None, None, None)
    assert resource.getrlimit(resource.RLIMIT_DATA) != before
    second.__exit__(None, None, None)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


# Files of other people.


def test_odd_files_read_or_are_refused_with_a_reason(odd_files):
    refused = {}
    for name, path in odd_files.items():
        try:
            assert isinstance(read(file_at(path), max_bytes=GIGABYTE).frame, pl.DataFrame)
        except UnreadableFile as error:
            refused[name] = str(error)
    assert all(told.startswith(f"{name}: ") for name, told in refused.items())
    assert set(refused) == DAMAGED & set(odd_files)
    assert "PARE" in refused["uniform_encryption.parquet.encrypted"]
    assert "claims 2,147," in refused["large_string_map.brotli.parquet"]
    assert "0 rows, its row groups 6" in refused["repeated_no_annotation.parquet"]


def test_encrypted_columns_are_left_out_with_a_reason_and_the_others_read(odd_files):
    content = read(file_at(odd_files["encrypt_columns_plaintext_footer.parquet.encrypted"]))
    assert content.frame.height == 50
    assert not {"float_field", "double_field"} & set(content.frame.columns)
    assert set(content.left_out) == {"float_field", "double_field"}
    assert all("encrypted" in reason for reason in content.left_out.values())


def test_an_int96_file_of_spark_reads_right(odd_files):
    values = read(file_at(odd_files["int96_from_spark.parquet"])).frame["a"]
    assert values.cast(pl.String).max() == "9999-12-31 03:00:00.000000"


def test_mutants_of_odd_files_never_do_worse(odd_files, tmp_path):
    rng = random.Random(7)
    wholes = [p.read_bytes() for name, p in odd_files.items() if name not in DAMAGED]
    told = []
    for number in range(400):
        data = bytearray(rng.choice([whole for whole in wholes if len(whole) < 100_000]))
        for _ in range(rng.choice([1, 2, 5])):
            data[rng.randrange(4, len(data) - 8)] = rng.randrange(256)
        try:
            read(written(tmp_path / f"{number}.parquet", bytes(data)), max_bytes=GIGABYTE)
        except UnreadableFile as error:
            told.append(str(error))
    assert told
    assert not any("\n" in text for text in told)

"""Files of every bad kind, dropped on real processes: what is good is served, what is bad is named."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import contents
from tests.support.contents import as_parquet
from tests.support.invariant import Witness, assert_invariant
from tests.support.workers import Shop, eventually, purchases, running_shop, several, write
from tests.unit.sources.test_reading import odd_files  # noqa: F401 - a fixture
from worker.service.embedded_redis import EmbeddedServer

SCENES = (
    *("chunks", "copied", "prealloc", "cut", "stealthy", "zoo", "bomb", "killer", "pair"),
    *("drift", "rewritten", "fleeting", "reused", "tiny"),
)
USERS = [{"user_id": user} for user in range(6)]
MAX_FILE_MEMORY = 64 << 20


@pytest.fixture(scope="module")
def shop(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop of one feature for each test."""
    definitions = several(
        {name: f"{name}/" for name in SCENES}, settings={"max_file_memory": MAX_FILE_MEMORY}
    )
    folder = tmp_path_factory.mktemp("shop")
    with running_shop(server, folder, definitions=definitions, sources=SCENES) as made:
        eventually(lambda: all(made.ticket(name).served for name in SCENES))
        yield made


def seen(shop: Shop, name: str) -> None:
    """Wait until another file of the source is online: all that lies there was looked at."""
    amount = float(time.monotonic_ns() % 1_000_000)
    write(shop.folder / name / "other.parquet", purchases((5, 0, amount)))
    eventually(lambda: (shop.online(name, 5) or {}).get("amount__sum__7d") == amount)


def many(first: float = 1.0) -> bytes:
    """A file of ten thousand bytes and more: 100 users beside those who are asked for, and user 1."""
    others = [(10 + number % 100, number, number**0.5) for number in range(1_000)]
    content = purchases(*others, (1, 0, first))
    assert len(content) > 10_000
    contents.note(content)
    return content


def sum_of(shop: Shop, name: str, user: int) -> float | None:
    row = shop.online(name, user)
    return None if row is None else row["amount__sum__7d"]


# -- files that are not whole yet, or no more


def test_a_file_written_in_chunks_is_left_until_it_is_closed(shop):
    content = many()
    with Witness(shop.project, {"chunks": USERS}, always=True):
        with (shop.folder / "chunks" / "slow.parquet").open("wb") as file:
            for start in range(0, len(content), len(content) // 3 + 1):
                file.write(content[start : start + len(content) // 3 + 1])
                file.flush()
                seen(shop, "chunks")
            # Its footer is whole by now, but it is not closed.
            assert shop.online("chunks", 1) is None
        assert_invariant(shop.project, features=["chunks"])
    assert sum_of(shop, "chunks", 1) == 1.0
    assert not shop.log("quarantined", feature="chunks")


@pytest.mark.slow
def test_a_big_file_is_copied_without_a_step_between(shop):
    frame = pl.DataFrame(
        {"user_id": range(600_000), "noise": pl.Series(range(600_000)).hash().cast(pl.String)}
    ).with_columns(user_id=pl.col("user_id") % 6, at=pl.lit("2024-01-01"), amount=1.0)
    big = shop.folder / "big"
    big.write_bytes(as_parquet(frame.with_columns(pl.col("at").str.to_datetime("%Y-%m-%d"))))
    assert big.stat().st_size > 5 << 20
    copies = [shop.folder / "copied" / f"{number}.parquet" for number in range(3)]
    for copy in copies:
        subprocess.run(["cp", str(big), str(copy)], check=True)
    eventually(lambda: sum_of(shop, "copied", 1) == 300_000.0)
    assert not shop.log("quarantined", feature="copied")
    assert shop.store.read_metadata("copied").row_count <= 1_800_000


def test_a_file_whose_middle_is_still_a_hole_is_left_until_it_is_closed(shop):
    content = many()
    with Witness(shop.project, {"prealloc": USERS}, always=True):
        with (shop.folder / "prealloc" / "torrent.parquet").open("wb") as file:
            file.truncate(len(content))
            file.write(content[:4])
            file.seek(len(content) - 2_000)
            file.write(content[-2_000:])
            file.flush()
            seen(shop, "prealloc")
            assert shop.online("prealloc", 1) is None
            file.seek(4)
            file.write(content[4:-2_000])
        assert_invariant(shop.project, features=["prealloc"])
    assert not shop.log("quarantined", feature="prealloc")


def test_a_file_cut_off_keeps_its_last_good_content_until_it_is_whole_again(shop):
    content = purchases((1, 0, 2.0), (2, 0, 3.0))
    file = write(shop.folder / "cut" / "a.parquet", content)
    write(shop.folder / "cut" / "b.parquet", purchases((3, 0, 1.0)))
    assert_invariant(shop.project, features=["cut"])
    versions = shop.versions("cut")
    with Witness(shop.project, {"cut": USERS}, always=True):
        os.truncate(file, len(content) // 2)
        assert_invariant(shop.project, features=["cut"], kept={"cut": {"a.parquet": content}})
        assert "cut off" in shop.store.books("cut").quarantine["a.parquet"].reason
        with file.open("wb") as again:
            again.write(content)
        assert_invariant(shop.project, features=["cut"])
    assert shop.versions("cut") == versions, "nothing changed that counts"


def test_other_bytes_under_the_same_size_and_time_are_noticed(shop):
    first, second, third = (purchases((1, 0, amount)) for amount in (1.0, 2.0, 3.0))
    assert len(first) == len(second) == len(third)
    for content in (second, third):
        contents.note(content)
    file = write(shop.folder / "stealthy" / "a.parquet", first)
    assert_invariant(shop.project, features=["stealthy"])
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    with Witness(shop.project, {"stealthy": USERS}, always=True):
        with file.open("r+b") as opened:  # its ctime tells
            opened.write(second)
        os.utime(file, ns=times)
        assert_invariant(shop.project, features=["stealthy"])
        part = file.with_suffix(".tmp")  # its inode tells
        part.write_bytes(third)
        os.utime(part, ns=times)
        part.rename(file)
        assert_invariant(shop.project, features=["stealthy"])
    assert sum_of(shop, "stealthy", 1) == 3.0


# -- files that are none of ours


def test_every_odd_file_is_set_aside_with_a_reason_and_the_good_one_is_served(shop, odd_files):  # noqa: F811
    for name, path in odd_files.items():
        write(shop.folder / "zoo" / Path(name).with_suffix(".parquet"), path.read_bytes())
    write(shop.folder / "zoo" / "ours.parquet", purchases((1, 0, 2.0)))
    empty = {"column_chunk_key_value_metadata.parquet"}  # an empty file is never bad
    bad = [str(Path(name).with_suffix(".parquet")) for name in odd_files if name not in empty]
    assert_invariant(shop.project, features=["zoo"], bad={"zoo": bad}, deadline_s=60)
    reasons = [entry.reason for entry in shop.store.books("zoo").quarantine.values()]
    assert all(len(reason) > 20 and "\n" not in reason for reason in reasons)
    assert not shop.log("refresh interrupted", feature="zoo")


def bomb() -> bytes:
    """Some kilobytes that honestly hold a terabyte: a million rows of one long text."""
    long = pa.DictionaryArray.from_arrays(
        pa.repeat(pa.scalar(0, pa.int32()), 1_000_000), pa.array(["a" * 1_000_000])
    )
    buffer = io.BytesIO()
    pq.write_table(pa.table({"user_id": long}), buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()


def test_a_small_file_that_holds_a_terabyte_is_refused_and_the_worker_lives(shop):
    content = bomb()
    assert len(content) < 100_000
    write(shop.folder / "bomb" / "ours.parquet", purchases((1, 0, 2.0)))
    assert_invariant(shop.project, features=["bomb"])
    with Witness(shop.project, {"bomb": USERS}, always=True):
        write(shop.folder / "bomb" / "bomb.parquet", content)
        assert_invariant(shop.project, features=["bomb"], bad={"bomb": ["bomb.parquet"]})
    assert "memory" in shop.store.books("bomb").quarantine["bomb.parquet"].reason
    assert not shop.log("refresh interrupted", feature="bomb")


DIES_OF_A_FILE = """
import os, signal, sys
from pathlib import Path
from mlforge.core import failpoints
from mlforge.cli import main
failpoints.arm("file.decoding", lambda: Path("deadly").exists() and os.kill(os.getpid(), signal.SIGKILL))
sys.exit(main(["worker"]))
"""


@pytest.mark.slow
def test_a_file_that_ends_its_readers_process_is_read_in_one_of_its_own(shop):
    worker = shop.processes[-1]
    worker.terminate()
    worker.wait(60)
    shop.processes.remove(worker)
    shop.run([sys.executable, "-c", DIES_OF_A_FILE])
    write(shop.folder / "killer" / "ours.parquet", purchases((1, 0, 2.0)))
    assert_invariant(shop.project, features=["killer"])
    (shop.folder / "deadly").touch()
    with Witness(shop.project, {"killer": USERS}, always=True):
        write(shop.folder / "killer" / "deadly.parquet", purchases((2, 0, 2.0)))
        write(shop.folder / "killer" / "bad.parquet", b"PAR1" + b"\0" * 100 + b"PAR1")
        assert_invariant(shop.project, features=["killer"], bad={"killer": ["bad.parquet"]})
    assert shop.log("refresh interrupted", feature="killer")
    (shop.folder / "deadly").unlink()


def test_two_files_one_behind_the_other_are_not_taken_for_one(shop):
    first, second = purchases((1, 0, 2.0)), purchases((2, 0, 3.0))
    write(shop.folder / "pair" / "a.parquet", first)
    write(shop.folder / "pair" / "both.parquet", first + second)
    assert_invariant(shop.project, features=["pair"], bad={"pair": ["both.parquet"]})
    assert "one behind the other" in shop.store.books("pair").quarantine["both.parquet"].reason


def test_a_schema_may_grow_but_not_lose_a_column_nor_change_its_type(shop):
    usual = pl.read_parquet(purchases((1, 0, 2.0), (2, 60, 3.0)))
    folder = shop.folder / "drift"
    for number in range(2):
        write(folder / f"{number}.parquet", as_parquet(usual.with_columns(amount=number + 0.5)))
    assert_invariant(shop.project, features=["drift"])
    with Witness(shop.project, {"drift": USERS}, always=True):
        write(folder / "more.parquet", as_parquet(usual.with_columns(channel=pl.lit("web"))))
        write(folder / "less.parquet", as_parquet(usual.drop("amount")))
        retyped = usual.with_columns(pl.col("amount").cast(pl.String))
        write(folder / "other.parquet", as_parquet(retyped))
        bad = ["less.parquet", "other.parquet"]
        assert_invariant(shop.project, features=["drift"], bad={"drift": bad})
        reasons = shop.store.books("drift").quarantine
        assert "amount" in reasons["less.parquet"].reason
        assert all(word in reasons["other.parquet"].reason for word in ("amount", "String"))
        for name in bad:
            write(folder / name, as_parquet(usual))
        assert_invariant(shop.project, features=["drift"])


# -- files that do not hold still


def test_a_file_replaced_and_rewritten_again_and_again_is_never_read_in_between(shop):
    renamed, in_place = (shop.folder / "rewritten" / name for name in ("a.parquet", "b.parquet"))
    with Witness(shop.project, {"rewritten": USERS}, always=True) as witness:
        for turn in range(30):
            write(renamed, purchases((2, 0, float(turn)), (3, turn, 1.0)))
            content = many(float(turn))
            with in_place.open("wb") as file:
                file.write(content[:5_000])
                file.flush()
                file.write(content[5_000:])
        assert_invariant(shop.project, features=["rewritten"])
    assert sum_of(shop, "rewritten", 1) == 29.0
    assert len(witness.versions["rewritten"]) <= 62


def test_a_file_removed_before_its_job_is_no_fault(shop):
    worker = shop.processes[-1]
    write(shop.folder / "fleeting" / "a.parquet", purchases((1, 0, 2.0)))
    assert_invariant(shop.project, features=["fleeting"])
    before = shop.ticket("fleeting").wanted
    with Witness(shop.project, {"fleeting": USERS}, always=True):
        worker.send_signal(signal.SIGSTOP)
        try:
            file = write(shop.folder / "fleeting" / "b.parquet", purchases((2, 0, 2.0)))
            eventually(lambda: shop.ticket("fleeting").wanted > before)
            file.unlink()
        finally:
            worker.send_signal(signal.SIGCONT)
        assert_invariant(shop.project, features=["fleeting"])
    assert shop.versions("fleeting") == ["1.0.0"]


def test_a_name_may_be_used_again_for_other_rows(shop):
    file = shop.folder / "reused" / "a.parquet"
    write(shop.folder / "reused" / "stays.parquet", purchases((5, 0, 1.0), (5, 1, 1.0)))
    with Witness(shop.project, {"reused": USERS}, always=True):
        for user in (1, 2):
            write(file, purchases((user, 0, 2.0)))
            assert_invariant(shop.project, features=["reused"])
            file.unlink()
            assert_invariant(shop.project, features=["reused"])
        write(file, purchases((1, 0, 2.0)))
        file.unlink()
        write(file, purchases((3, 0, 2.0)))
        assert_invariant(shop.project, features=["reused"])


@pytest.mark.slow
def test_hundreds_of_tiny_files_at_once_become_few_refreshes(shop):
    taken_in_few_refreshes(shop, files=300, refreshes=30, deadline_s=60)


@pytest.mark.slow
def test_ten_thousand_tiny_files_at_once_become_few_refreshes(shop):
    taken_in_few_refreshes(shop, files=10_000, refreshes=100, deadline_s=240)


def taken_in_few_refreshes(shop: Shop, files: int, refreshes: int, deadline_s: float) -> None:
    """refreshes: more than fit into the time in which a slow machine writes the files, and far fewer than files."""
    before = len(shop.log("refreshed", feature="tiny"))
    with Witness(shop.project, {"tiny": USERS}, every_s=0.1, always=True):
        for number in range(files):
            content = purchases((number % 500, number, 1.0))
            contents.note(content)
            part = shop.folder / "tiny" / f"{files}-{number}.parquet.tmp"
            part.write_bytes(content)
            part.rename(part.with_suffix(""))
        assert_invariant(shop.project, features=["tiny"], deadline_s=deadline_s)
    assert 1 <= len(shop.log("refreshed", feature="tiny")) - before <= refreshes

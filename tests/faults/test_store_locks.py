"""A lock of the store ends with its holder, whatever that forked, and says who holds it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mlforge.errors import StoreBusy, StoreError
from mlforge.store import LocalStore
from mlforge.store.local import lock
from mlforge.store.local.lock import exclusive
from tests.support.workers import Shop, eventually, purchases, write
from worker.service.embedded_redis import EmbeddedServer

libc = ctypes.CDLL(None)


@pytest.fixture
def children() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def forked(children: list[int], fork: str) -> None:
    """A child that does nothing for a minute, and has all that its parent had open."""
    pid = os.fork() if fork == "os.fork" else libc.fork()
    if pid == 0:
        libc.sleep(60)
        os._exit(0)
    children.append(pid)


@pytest.mark.parametrize("fork", ["os.fork", "libc.fork"])
def test_a_child_does_not_keep_a_lock_that_its_parent_has_let_go(
    tmp_path: Path, children: list[int], fork: str
) -> None:
    with exclusive(tmp_path / ".lock"):
        forked(children, fork)
    with exclusive(tmp_path / ".lock", timeout_s=0.2):
        pass


HOLDER = """
import os, sys, time
from pathlib import Path
from mlforge.store.local.lock import exclusive
with exclusive(Path(sys.argv[1])):
    if sys.argv[2] == "forks" and not os.fork():
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    if sys.argv[2] == "alone":
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def holder(path: Path, how: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), how], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_a_child_does_not_keep_the_lock_of_a_parent_that_was_killed(
    tmp_path: Path, children: list[int]
) -> None:
    parent, child = holder(tmp_path / ".lock", "forks")
    children.append(child)
    with pytest.raises(StoreBusy), exclusive(tmp_path / ".lock", timeout_s=0.05):
        pass
    parent.kill()
    parent.wait()  # its child has the pipe, too: reading to the end would wait for that one
    assert parent.stdout is not None
    parent.stdout.close()
    with exclusive(tmp_path / ".lock", timeout_s=1):
        os.kill(child, 0)  # which is still there


def test_a_child_that_unwinds_the_block_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    """As a function's child does that raises, or ends with sys.exit."""
    ours = os.getpid()
    try:
        with exclusive(tmp_path / ".lock"):
            pid = os.fork()
            if pid == 0:
                raise KeyError
            os.waitpid(pid, 0)
            with pytest.raises(StoreBusy), exclusive(tmp_path / ".lock", timeout_s=0.05):
                pass
    finally:
        if os.getpid() != ours:
            os._exit(0)


def test_who_waits_too_long_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    process, pid = holder(tmp_path / ".lock", "alone")
    began = time.monotonic()
    told = rf"locked by process {pid} on .* since 2"
    with pytest.raises(StoreBusy, match=told), exclusive(tmp_path / ".lock", timeout_s=0.2):
        pass
    assert 0.2 <= time.monotonic() - began < 60
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    "note", [b"", b"\xff", b"[]", b"1", b'{"pid": 1}', b"[" * 200_000, b"a\x1b[2J"]
)
def test_a_note_that_no_holder_wrote_is_not_believed(tmp_path: Path, note: bytes) -> None:
    with exclusive(tmp_path / ".lock"):
        (tmp_path / ".lock").write_bytes(note)
        told = "a process that left no name"
        with pytest.raises(StoreBusy, match=told), exclusive(tmp_path / ".lock", timeout_s=0.01):
            pass


def test_a_hard_link_in_the_place_of_a_lock_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    os.link(tmp_path / "precious", tmp_path / ".lock")
    with exclusive(tmp_path / ".lock"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_store_says_which_feature_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    with store.lock("spend"):
        monkeypatch.setattr(lock.exclusive.__wrapped__, "__defaults__", (0.05,))
        with pytest.raises(StoreError, match=r"spend is locked by process"), store.lock("spend"):
            pass
        with store.lock("other"):
            pass


FORKS = """
def forking(df: pl.DataFrame) -> pl.DataFrame:
    import os, time
    if os.fork() == 0:
        time.sleep(120)
        os._exit(0)
    return df.select("user_id", "at", "amount")


FORKING = feature(keys=["user_id"], source="drops/", timestamp="at", name="spend", incremental=True)(forking)
"""


@pytest.mark.slow
def test_a_function_that_forks_stops_no_later_refresh(
    server: EmbeddedServer,
    tmp_path: Path,
) -> None:
    text = f"""
from pathlib import Path
import polars as pl
from mlforge import Definitions, feature
from mlforge.store import LocalStore
{FORKS}
defs = Definitions(store=LocalStore(Path(__file__).parent / "feature_store"), features=[FORKING], name="shop")
"""
    shop = Shop(tmp_path, server.url, definitions=text, sources=("drops",))
    try:
        shop.start("watch")
        shop.start("worker")
        for user in (1, 2, 3):
            write(shop.folder / f"drops/{user}.parquet", purchases((user, 0, 1.0)))
            eventually(lambda user=user: shop.online("spend", user), within=60)
    finally:
        shop.stop()

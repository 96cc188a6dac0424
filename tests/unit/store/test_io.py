"""Files are on the disk once a call returns, by however many threads."""

from __future__ import annotations

import errno
import os
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlforge.errors import StoreError
from mlforge.store.local import io


def test_a_fork_syncs_by_threads_of_its_own(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(9)]
    for file in files:
        file.write_text("text")
    io.sync_all(files)  # threads are started, which a fork does not have
    child = os.fork()
    if child == 0:
        try:
            io.sync_all(files)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("others", [0, 1, 8])
def test_files_are_synced_where_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    synced: list[Path] = []
    monkeypatch.setattr(io, "sync", synced.append)
    monkeypatch.setattr(io, "_threads", lambda: ThreadPoolExecutor(2))
    monkeypatch.setattr(threading.Thread, "start", refused)
    files = [tmp_path / str(number) for number in range(1 + others)]
    io.sync_all(files)
    assert sorted(synced) == files


def test_a_file_that_cannot_be_synced_is_told_once_all_others_are_done(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(6)]
    for file in files[:-1]:
        file.write_text("text")
    for order in (files, files[::-1]):
        with pytest.raises(FileNotFoundError):
            io.sync_all(order)


def test_a_file_that_takes_a_part_of_what_is_written_behind_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log"
    io.append_text(path, "one\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, before[1]))
    try:
        with pytest.raises(StoreError, match="cannot write"):
            io.append_text(path, "two\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    io.append_text(path, "\nthree\n")
    assert path.read_text().splitlines()[-1] == "three"


def test_a_document_takes_any_text_that_python_has(tmp_path: Path) -> None:
    document = {"odd": "é \udcff", "list": [{"\ud800": "\U0001f600"}]}
    io.write_json(tmp_path / "document", document)
    assert io.read_json(tmp_path / "document") == document


def test_a_denied_write_says_whose_the_place_is_and_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", "x")
    with (
        pytest.raises(StoreError, match=r"permission is denied \("),
        io.storage_errors(tmp_path / "x"),
    ):
        raise denied
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    whose = f"as {tmp_path} belongs to .*, and user 4000000000 asks"
    with pytest.raises(StoreError, match=whose), io.storage_errors(tmp_path / "x"):
        raise denied

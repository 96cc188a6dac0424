"""Whose a folder is that is no version yet: a live process's is left alone, a dead one's is litter."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mlforge.store import LocalStore
from mlforge.store.local import staging
from mlforge.store.local.staging import PREFIX, is_litter, new_name
from mlforge.testing.store_values import FIRST, publish

HOST = socket.gethostname()
LONG_AGO = 1_000_000_000


def made(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


def test_a_folder_of_a_live_process_is_no_litter_and_one_of_this_process_that_lies_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_litter(made(tmp_path, new_name())), "a process of the same id had it before"
    parent = made(tmp_path, f"{PREFIX}{HOST}-{os.getppid()}-ab")
    assert not is_litter(parent)

    def refused(*_: object) -> None:
        raise PermissionError("another user's")

    monkeypatch.setattr(staging.os, "kill", refused)
    assert not is_litter(parent), "it is there, though it is another user's"


@pytest.mark.parametrize("name", [f"{PREFIX}elsewhere-1-ab", f"{PREFIX}{HOST}-x-ab"])
def test_a_folder_of_another_host_is_litter_once_it_is_a_day_old(tmp_path: Path, name: str) -> None:
    path = made(tmp_path, name)
    assert not is_litter(path)
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert is_litter(path)


def test_whoever_takes_the_lock_leaves_what_a_live_process_makes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    publish(store, FIRST, 1)
    alive = made(store.path / "spend", f"{PREFIX}{HOST}-{os.getppid()}-ab")
    dead = made(store.path / "spend", new_name())
    with store.lock("spend"):
        assert (alive.exists(), dead.exists()) == (True, False)

"""Leases of the local store: a reader keeps its version, and `prune` leaves it for the next time."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

from mlforge import get_training_data
from mlforge.engines import evaluation
from mlforge.errors import VersionInUse, VersionNotFound
from mlforge.maintenance.operations import prune, verify
from mlforge.maintenance.retention import Retention
from mlforge.store import LocalStore
from mlforge.store.local.leases import shared
from mlforge.testing.store_values import FIRST, SECOND, publish
from tests.support.projects import Project, rows


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_a_version_that_is_read_stays_until_it_is_not(store):
    publish(store, FIRST, 1)
    publish(store, SECOND, 1, 2)
    reader = LocalStore(store.path)
    with reader.lease("spend", FIRST), reader.lease("spend", FIRST):
        with pytest.raises(VersionInUse, match=r"spend 1\.0\.0 is being read"), store.lock("spend"):
            store.remove("spend", FIRST)
        assert store.versions("spend") == [FIRST, SECOND]
    with store.lock("spend"):
        store.remove("spend", FIRST)
    with pytest.raises(VersionNotFound, match=r"1\.0\.1"), reader.lease("spend", FIRST):
        pass
    with pytest.raises(VersionNotFound), reader.lease("other", FIRST):
        pass


def test_a_document_that_is_replaced_before_it_is_shared_is_not_leased(tmp_path, monkeypatch):
    path, newer = tmp_path / "document", tmp_path / "newer"
    path.touch()
    newer.touch()
    share = fcntl.flock

    def replaced(descriptor: int, how: int) -> None:
        if how == fcntl.LOCK_SH:
            newer.replace(path)
        share(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", replaced)
    with pytest.raises(FileNotFoundError), shared(path):
        pytest.fail("it is another version's by now")


def test_a_fork_made_under_a_lease_does_not_keep_it(store):
    publish(store, FIRST, 1)
    publish(store, SECOND, 1, 2)
    with store.lease("spend", FIRST):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        store.remove("spend", FIRST)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_prune_leaves_what_a_training_read_has_in_hand(tmp_path, monkeypatch):
    """Its partials, too: the read goes on with them."""
    project = Project(tmp_path / "project")
    path = project.drop("a", rows((1, 0, 1.0), (1, 1, 2.0)))
    project.build()
    path.unlink()
    project.drop("b", rows((1, 0, 5.0)))
    project.build()
    pruned = []

    def values_at(*args):
        pruned.extend(prune(LocalStore(project.store.path), ["spend"], Retention(newest=1)))
        return original(*args)

    original = evaluation.values_at
    monkeypatch.setattr(evaluation, "values_at", values_at)
    spine = rows((1, 1, 0.0)).select("user_id", "at")
    answer = get_training_data(spine, [("spend", "1.0.0")], project.store)
    assert answer["spend__amount__sum__7d"].to_list() == [3.0]
    assert (pruned[0].versions, pruned[0].in_use, pruned[0].partials) == ((), ("1.0.0",), 0)
    assert verify(project.store, ["spend"]) == []
    [later] = prune(project.store, ["spend"], Retention(newest=1))
    assert (later.versions, later.in_use, later.partials) == (("1.0.0",), (), 1)

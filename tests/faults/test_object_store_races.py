"""Processes that publish into one bucket at once and are killed: versions follow each other, whoever wins."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from mlforge.core import failpoints
from mlforge.core.values import Version
from mlforge.errors import StoreError
from mlforge.maintenance.operations import verify
from mlforge.store import ObjectStore
from mlforge.testing.store_values import events, version_of
from tests.support.crashes import start
from tests.support.faults import Proxy
from tests.support.object_servers import BUCKET, Server, moto, seaweed

PUBLISHERS, EACH = 6, 4
URL = f"s3://{BUCKET}/races"


def publish_some(options: Mapping[str, str], folder: Path, number: int, attempt: int) -> None:
    """Publish until enough is done, noted in a file; one time in ten die between manifest and pointer."""
    chance = random.Random(f"{number}-{attempt}")

    def perhaps_die() -> None:
        if chance.random() < 0.1:
            os.kill(os.getpid(), signal.SIGKILL)

    failpoints.arm("publish.renamed", perhaps_die)
    store, done = ObjectStore(URL, folder / f"cache-{number}", options), folder / f"done-{number}"
    while not done.exists() or len(done.read_text()) < EACH:
        try:
            with store.open("spend") as snapshot, store.transaction(snapshot) as tx:
                last = snapshot.versions[-1] if snapshot.versions else None
                version = last.bumped("patch") if last else Version(1, 0, 0)
                tx.commit(version_of(tx, version, events(number), parent=last))
        except StoreError:
            continue
        with done.open("a") as file:
            file.write(".")


@pytest.mark.slow
@pytest.mark.parametrize("drop_share", [0.0, 0.15])
@pytest.mark.parametrize("kind", ["seaweedfs", "moto"])
def test_publishers_that_are_killed_leave_versions_that_follow_each_other(
    tmp_path, kind, drop_share
):
    """Also where a proxy takes that share of the answers away, so that nobody knows what was done."""
    kills = 0
    with ExitStack() as servers:
        direct = servers.enter_context(
            seaweed(tmp_path / "seaweed") if kind == "seaweedfs" else moto()
        )
        proxy = Proxy(int(direct.endpoint.rpartition(":")[2]), drop_share=drop_share)
        servers.enter_context(proxy)
        server = Server(f"http://127.0.0.1:{proxy.port}")
        running = {
            n: start(publish_some, server.options, tmp_path, n, 0) for n in range(PUBLISHERS)
        }
        attempts = 0
        while running:
            for number, process in list(running.items()):
                process.join(240)
                attempts += 1
                if process.exitcode == 0:
                    del running[number]
                    continue
                assert process.exitcode == -signal.SIGKILL
                kills += 1
                running[number] = start(publish_some, server.options, tmp_path, number, attempts)
        store = ObjectStore(URL, tmp_path / "cache", direct.options)
        with store.lock("spend"):
            versions = store.versions("spend")
        assert [version.patch for version in versions] == list(range(len(versions)))
        assert len(versions) >= PUBLISHERS * EACH
        parents = [store.manifest("spend", version).parent for version in versions]
        assert parents == [None, *versions[:-1]]
        assert verify(store, ["spend"]) == []
    assert kills > 0
    assert (proxy.dropped > 0) == (drop_share > 0)

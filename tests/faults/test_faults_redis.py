"""A server that goes away, forgets, fills up, evicts, answers late or not at all: it all comes right again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.faults import ASKED, Plant, Proxy, copy_of, restore, running
from tests.support.invariant import Witness, assert_invariant
from tests.support.workers import eventually
from worker.service.embedded_redis import EmbeddedServer

WITHIN_S = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that the test may do anything to."""
    with EmbeddedServer(tmp_path / "redis") as made:
        yield made


@pytest.fixture
def plant(server: EmbeddedServer, tmp_path: Path) -> Iterator[Plant]:
    """A plant at work, each feature online."""
    folder = tmp_path / "plant"
    folder.mkdir()
    made = Plant(folder, server.url).run_all()
    made.drop()
    assert_invariant(made.project, deadline_s=60)
    yield from running(made)


def wake(process: int) -> None:
    os.kill(process, signal.SIGCONT)


def has_told(plant: Plant, version: str) -> bool:
    """Whether a worker says that it has refreshed `spend` to that version."""
    entries = plant.project.event_log.recent()
    return any(
        (entry.kind, entry.feature, entry.details.get("version")) == ("refreshed", "spend", version)
        for entry in entries
    )


@pytest.mark.slow
def test_a_server_flushed_amid_a_push_and_at_rest_is_filled_again(plant: Plant) -> None:
    with Witness(plant.project, ASKED):
        plant.project.redis.flushall()
        assert_invariant(plant.project)
        plant.order("push.put@spend", "stop")
        plant.drop()
        fork = eventually(lambda: plant.obeyed("push.put@spend"))
        plant.project.redis.flushall()
        plant.drop()
        wake(fork)
        assert_invariant(plant.project, deadline_s=WITHIN_S)


@pytest.mark.slow
def test_a_server_restored_from_an_old_copy_is_brought_up_to_date(plant: Plant) -> None:
    """Rows, books, tickets and jobs of then: none of them is taken for the state of now."""
    client = plant.project.redis
    plant.order("refresh.done@spend", "stop")
    plant.drop()
    fork = eventually(lambda: plant.obeyed("refresh.done@spend"))
    copy = copy_of(client)
    wake(fork)
    assert_invariant(plant.project)
    for _ in range(3):
        plant.drop()
        assert_invariant(plant.project)
    restore(client, copy)
    assert_invariant(plant.project, deadline_s=WITHIN_S)
    plant.drop()
    restore(client, copy)
    assert_invariant(plant.project, deadline_s=WITHIN_S)


@pytest.mark.slow
def test_a_worker_that_slept_past_its_lease_overwrites_nothing_newer(plant: Plant) -> None:
    """It stops with its rows in hand; others publish and push what came since; then it goes on."""
    with Witness(plant.project, ASKED):
        plant.order("push.begun@spend", "stop")
        plant.drop()
        fork = eventually(lambda: plant.obeyed("push.begun@spend"))
        worker = int(Path(f"/proc/{fork}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(worker, signal.SIGSTOP)
        [*_, in_hand] = plant.versions("spend")
        plant.drop()
        assert_invariant(plant.project, deadline_s=WITHIN_S)
        written = plant.order("push.removed@spend", "stop")
        assert not has_told(plant, in_hand)
        wake(fork)
        wake(worker)
        eventually(lambda: has_told(plant, in_hand))
        assert written.exists(), "it has written its rows"
        written.unlink()
        plant.drop()
        assert_invariant(plant.project, deadline_s=WITHIN_S)


@pytest.mark.slow
def test_a_server_that_is_down_at_the_start_is_waited_for(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    folder = tmp_path / "plant"
    folder.mkdir()
    url = server.url
    server.stop()
    plant = Plant(folder, url).run_all()
    for _ in running(plant):
        plant.drop()
        eventually(lambda: all(each.starts > 1 for each in plant.supervised))
        server.start()
        assert_invariant(plant.project, deadline_s=WITHIN_S)


@pytest.mark.slow
def test_a_server_restarted_at_rest_and_amid_a_job_ends_no_worker(
    plant: Plant, server: EmbeddedServer
) -> None:
    with Witness(plant.project, ASKED):
        server.stop()
        server.start()
        plant.drop()
        assert_invariant(plant.project, deadline_s=WITHIN_S)
        plant.order("refresh.done@spend", "stop")
        plant.drop()
        fork = eventually(lambda: plant.obeyed("refresh.done@spend"))
        server.stop()
        wake(fork)
        plant.drop()
        server.start()
        assert_invariant(plant.project, deadline_s=WITHIN_S)
    assert [each.starts for each in plant.supervised] == [1, 1, 1]


@pytest.mark.slow
def test_a_failover_to_a_replica_that_lacks_the_last_writes_is_made_good(plant: Plant) -> None:
    """The replica heard of the push's beginning and of its first rows, and of nothing since."""
    client = plant.project.redis
    with Witness(plant.project, ASKED):
        plant.order("push.put@spend", "stop")
        plant.drop()
        fork = eventually(lambda: plant.obeyed("push.put@spend"))
        copy = copy_of(client)
        wake(fork)
        assert_invariant(plant.project)
        plant.drop()
        eventually(lambda: plant.versions("spend")[-1] == "1.0.2")
        restore(client, copy)
        assert_invariant(plant.project, deadline_s=WITHIN_S)


@pytest.mark.slow
def test_a_full_server_delays_and_loses_nothing(plant: Plant) -> None:
    """What it refuses waits; no feature is blamed and none parked."""
    client = plant.project.redis
    with Witness(plant.project, ASKED):
        client.config_set("maxmemory", "1")
        plant.drop()
        eventually(lambda: "server away" in (plant.folder / "output.log").read_text())
        plant.drop()
        client.config_set("maxmemory", "0")
        assert_invariant(plant.project, deadline_s=WITHIN_S)
    assert [each.starts for each in plant.supervised] == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_loses_no_drop_and_its_rows_come_back(
    plant: Plant, policy: str
) -> None:
    """Rows, books, tickets and jobs may go, at any moment."""
    client = plant.project.redis
    client.config_set("maxmemory-policy", policy)
    for share in (0.9, 0.7, 0.5):
        before, used = client.info("stats")["evicted_keys"], client.info("memory")["used_memory"]
        client.config_set("maxmemory", str(int(used * share)))
        plant.drop()
        eventually(lambda before=before: client.info("stats")["evicted_keys"] > before)
        client.config_set("maxmemory", "0")
        plant.drop()
        assert_invariant(plant.project, deadline_s=WITHIN_S)


def amounts(plant: Plant) -> set[float]:
    return set(plant.store.read("newest")["amount"].to_list())


@pytest.mark.slow
def test_a_row_that_somebody_deletes_is_written_again(plant: Plant) -> None:
    [entity] = [e for e in ASKED["newest"] if plant.project.online.read("newest", e)][:1]
    plant.project.online.delete("newest", entity)
    eventually(lambda: plant.project.online.read("newest", entity), 60)
    assert_invariant(plant.project)


def behind_a_proxy(server: EmbeddedServer, tmp_path: Path, proxy: Proxy) -> Plant:
    folder = tmp_path / "plant"
    folder.mkdir()
    port = urlsplit(server.url).port
    return Plant(folder, server.url.replace(f":{port}/", f":{proxy.port}/")).run_all()


def port_of(server: EmbeddedServer) -> int:
    port = urlsplit(server.url).port
    assert port is not None
    return port


@pytest.mark.slow
def test_answers_that_are_lost_after_the_server_has_done_as_asked_do_no_harm(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """The client repeats what it was not answered: requests, leases, rows, books."""
    with Proxy(port_of(server)) as proxy:
        plant = behind_a_proxy(server, tmp_path, proxy)
        for _ in running(plant):
            plant.drop()
            assert_invariant(plant.project, deadline_s=WITHIN_S)
            with Witness(plant.project, ASKED):
                for lost in range(1, 13):
                    proxy.drop_answers = lost
                    plant.drop()
                    eventually(lambda: plant.drops in amounts(plant), WITHIN_S)
                proxy.drop_answers = 0
                assert_invariant(plant.project, deadline_s=WITHIN_S)
            assert proxy.dropped >= 50


@pytest.mark.slow
def test_a_slow_server_is_waited_for(server: EmbeddedServer, tmp_path: Path) -> None:
    with Proxy(port_of(server)) as proxy:
        plant = behind_a_proxy(server, tmp_path, proxy)
        for _ in running(plant):
            plant.drop()
            assert_invariant(plant.project, deadline_s=WITHIN_S)
            with Witness(plant.project, ASKED):
                proxy.delay_s = 0.05
                for _ in range(3):
                    plant.drop()
                assert_invariant(plant.project, deadline_s=60)
                proxy.delay_s = 0.0
                proxy.cut = True
                proxy.cut_all()
                plant.drop()
                proxy.cut = False
                assert_invariant(plant.project, deadline_s=WITHIN_S)

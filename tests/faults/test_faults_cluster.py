"""A cluster whose nodes die, take over, come back empty, or hand slots to one another while rows are pushed and read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlforge import Definitions, get_online_features
from mlforge.core import failpoints
from mlforge.errors import NotServed, OnlineUnavailable
from mlforge.frames.encoding import key_hash
from mlforge.online import RedisStore
from mlforge.online.redis import cluster_rounds
from mlforge.online.staleness import behind
from mlforge.testing.online_values import NEW, OLD, books, entities, frame, push
from tests.support.clusters import Cluster, SlotMove, cluster
from tests.support.projects import Project, rows
from tests.support.workers import eventually

pytestmark = pytest.mark.slow


def row_key(user: int) -> str:
    digest = key_hash({"user_id": user})
    return f"mlforge:{{spend:{int(digest[:2], 16) % 64}}}:{digest}"


@pytest.fixture
def mortal_cluster() -> Iterator[Cluster]:
    """A cluster that the test may do anything to."""
    with cluster() as made:
        yield made


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "p")
    made.drop("one", rows(*((user, 0, float(user)) for user in range(200))))
    return made


def sums(store: RedisStore, users: range) -> list[float | None]:
    found = get_online_features(["spend"], entities(*users), store)
    return [row["spend__amount__sum__7d"] for row in found]


def pushed(project: Project, store: RedisStore) -> Definitions:
    defs = project.definitions(online_store=store)
    defs.build(online=True)
    return defs


def users_on(cluster: Cluster, number: int) -> range:
    """Some users whose rows are on a node, as a range of one."""
    user = next(user for user in range(200) if cluster.owner(row_key(user)) == number)
    return range(user, user + 1)


def test_a_master_without_a_replica_that_dies_is_told_of_and_filled_again_when_it_is_back(
    mortal_cluster: Cluster, project: Project
) -> None:
    store = RedisStore.from_url(mortal_cluster.url)
    defs = pushed(project, store)
    before = store.evidence()
    lost, kept = users_on(mortal_cluster, 1), users_on(mortal_cluster, 0)
    assert sums(store, kept) == [float(kept.start)]
    mortal_cluster.kill(1)
    calls = (
        lambda: store.read("spend", {"user_id": lost.start}),
        lambda: store.books("spend"),
        lambda: store.begin("spend", NEW),
        store.evidence,
        store.ping,
    )
    for call in calls:
        with pytest.raises(
            OnlineUnavailable, match=r"redis (cluster )?at .* (is down|does not answer)"
        ):
            call()
    mortal_cluster.start_again(1)
    mortal_cluster.wait()
    assert store.evidence() != before
    assert sums(store, kept) == [float(kept.start)], "of a reader that knew the feature before"
    with pytest.raises(NotServed):
        sums(store, lost)
    assert behind(project.store, store, "spend") is not None
    assert defs.push("spend").full
    assert sums(store, range(200)) == [float(user) for user in range(200)]
    assert behind(project.store, store, "spend") is None
    store.close()


def test_counts_of_one_node_that_were_set_back_hide_no_eviction(
    mortal_cluster: Cluster, project: Project
) -> None:
    """The row goes by hand: the node's count says as little of it as that of an eviction before."""
    store = RedisStore.from_url(mortal_cluster.url)
    defs = pushed(project, store)
    [user] = users_on(mortal_cluster, 1)
    assert sums(store, range(user, user + 1)) == [float(user)]
    assert sums(store, range(777, 778)) == [None]
    mortal_cluster.ask(1, "DEL", row_key(user))
    mortal_cluster.ask(1, "CONFIG", "RESETSTAT")
    for missing in (user, 777):
        with pytest.raises(NotServed, match="set back"):
            sums(store, range(missing, missing + 1))
    assert defs.push("spend").full
    assert sums(store, range(200)) == [float(user) for user in range(200)]
    assert sums(store, range(777, 778)) == [None]
    store.close()


def cut_off(cluster: Cluster, replica: int, master: int) -> None:
    """The replica hears of nothing from here on: a wrong password ends its link, and bars another."""
    with cluster.client(replica) as client:
        eventually(lambda: client.info("replication").get("master_link_status") == "up")
        client.config_set("masterauth", "wrong")
        cluster.ask(master, "CLIENT", "KILL", "TYPE", "replica")
        eventually(lambda: client.info("replication").get("master_link_status") == "down")


def fail_over(cluster: Cluster, replica: int, master: int) -> None:
    """The master dies, and the replica takes its slots."""
    cluster.kill(master)
    eventually(lambda: cluster.ask(replica, "ROLE")[0] == "master")
    cluster.wait()


@pytest.fixture
def replicated() -> Iterator[Cluster]:
    """A cluster with a replica, the node 3, of its first master."""
    with cluster(replicas=1) as made:
        yield made


@pytest.mark.parametrize("place", ["push.begun", "push.put", "push.removed", None])
def test_a_failover_that_loses_what_was_written_last_makes_no_row_pass_for_what_it_is_not(
    replicated: Cluster, project: Project, place: str | None
) -> None:
    """The replica has all up to some place of a push, or to before it."""
    store = RedisStore.from_url(replicated.url)
    defs = pushed(project, store)
    project.drop("two", rows(*((user, 1, 1000.0) for user in range(0, 200, 2))))
    defs.build()
    done = [False]

    def fail() -> None:
        if not done[0]:
            done[0] = True
            fail_over(replicated, 3, 0)

    def cut() -> None:
        with replicated.client(0) as client:
            client.execute_command("WAIT", 1, 5_000)
        cut_off(replicated, 3, 0)

    if place is None:  # all of the push is lost on that node, after it was done
        cut()
        defs.push("spend")
        fail()
    else:
        failpoints.arm("push.begun", cut)
        failpoints.arm(place if place != "push.begun" else "push.put", fail)
        try:
            defs.push("spend")
        except OnlineUnavailable as error:
            assert "restarted or failed over" in str(error)  # noqa: PT017
        finally:
            failpoints.disarm()
    assert behind(project.store, store, "spend") is not None
    before = {float(user) for user in range(200)}
    for user, value in enumerate(sums(store, range(200))):
        assert value in (before | {float(user) + 1000.0})
    defs.push("spend")
    assert behind(project.store, store, "spend") is None
    expected = [user + (0.0 if user % 2 else 1000.0) for user in range(200)]
    assert sums(store, range(200)) == expected
    store.close()


def test_a_slot_that_is_split_between_two_nodes_is_waited_for(mortal_cluster: Cluster) -> None:
    store = RedisStore.from_url(mortal_cluster.url)
    push(store, OLD, *range(3_000))
    store.begin("spend", NEW)
    move = SlotMove(mortal_cluster, row_key(7))
    move.begin()
    assert move.move(5) == 5
    ended = threading.Timer(0.6, move.end)
    ended.start()
    assert store.put("spend", NEW, frame(*range(3_000), amount=2.0), ["user_id"]) == 3_000
    ended.join()
    mortal_cluster.wait()
    store.finish("spend", NEW, books(3_000))
    found = store.read_batch("spend", entities(*range(3_000)))
    assert {row and row["amount__sum__7d"] for row in found} == {2.0}
    assert mortal_cluster.owner(row_key(7)) == move.target
    store.close()


def test_keys_of_a_slot_that_moves_are_listed_once_it_has_arrived(mortal_cluster: Cluster) -> None:
    store = RedisStore.from_url(mortal_cluster.url)
    push(store, OLD, *range(3_000))
    move = SlotMove(mortal_cluster, row_key(7))
    move.begin()
    assert move.move(20) == 20
    ended = threading.Timer(0.6, move.end)
    ended.start()
    assert len(store.list_digests("spend")) == 3_000
    ended.join()
    mortal_cluster.wait()
    assert store.rows_by_feature(["spend"]) == {"spend": 3_000}
    assert store.renew("spend", OLD) == 3_000
    store.close()


def test_a_slot_that_stays_split_is_an_error_in_words_and_no_missing_row(
    mortal_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_rounds, "_MOVED", 4)
    monkeypatch.setattr("mlforge.online.redis.cluster._SCANS", 3)
    store = RedisStore.from_url(mortal_cluster.url)
    push(store, OLD, *range(3_000))
    move = SlotMove(mortal_cluster, row_key(7))
    move.begin()
    assert move.move(20) == 20
    for call in (
        lambda: store.renew("spend", OLD),
        lambda: store.put("spend", OLD, frame(*range(3_000)), ["user_id"]),
        lambda: store.list_digests("spend"),
    ):
        with pytest.raises(OnlineUnavailable, match="moves"):
            call()
    for user in range(20):  # of any slot: the row, or an error
        try:
            assert store.read("spend", {"user_id": user}) is not None
        except OnlineUnavailable as error:
            assert "moves slots" in str(error)  # noqa: PT017
    move.end()
    mortal_cluster.wait()
    assert store.renew("spend", OLD) == 3_000
    store.close()

"""What is, compared with what should be: no work is lost, and none is done twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from redis import Redis

from mlforge import get_online_features
from mlforge.core import clock
from mlforge.core.forgotten import Entity, Forgotten
from mlforge.core.keeper import DefinedNames
from mlforge.core.values import HOUR_US, SECOND_US, to_us
from mlforge.definitions.registry import Definitions
from mlforge.errors import (
    DataError,
    MlforgeError,
    NotServed,
    OnlineError,
    SourceUnavailable,
    StoreUnavailable,
)
from mlforge.frames.encoding import key_hash
from mlforge.maintenance.operations import verify
from mlforge.online import OnlineStore
from mlforge.online.books import INCOMPLETE, RECOUNT_AFTER_US
from mlforge.online.staleness import behind
from mlforge.sources.source_reading import SourceReading
from mlforge.store import Books
from mlforge.store.records import FeatureKeeper, Quarantined, StoreIdentity
from tests.support.workers import Shop, eventually, purchases, several, write
from worker.monitor.status import gather
from worker.project import Project, Settings
from worker.queue import JobQueue, enqueue, queue_of, refresh_job
from worker.queue.cascade import request_readers
from worker.queue.requests import Requests
from worker.reconcile.reconciler import (
    COMPARE_EVERY_S,
    LOST_AFTER_S,
    UNFORGOTTEN_AFTER_S,
    Reconciler,
)
from worker.service.wait import ask_at_once, leave_quarantine, wait_for
from worker.state import ticket as tickets
from worker.state import work_queue as protocol
from worker.state.pending import PendingRequest

COUNTED_S = 3_600.0
"""So long after a count the next one is due, however long that took on a busy machine."""

CHAIN = """
from pathlib import Path

import polars as pl

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore


@feature(keys=["user_id"], source="drops/", timestamp="at", metrics=[Rolling(["7d"], {"amount": ["sum"]})])
def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", "amount")


@feature(keys=["user_id"], source=spend, timestamp="at", metrics=[Rolling("30d", {"amount__sum__7d": ["max"]})])
def peak(df: pl.DataFrame) -> pl.DataFrame:
    return df


defs = Definitions(store=LocalStore(Path(__file__).parent / "feature_store"), features=[peak, spend], name="shop")
"""


@pytest.fixture
def shop(redis: Redis, server, tmp_path: Path) -> Shop:
    """A shop for which no process runs."""
    return Shop(tmp_path, server.url)


@pytest.fixture
def chain(redis: Redis, server, tmp_path: Path) -> Shop:
    """The same of a feature and its reader."""
    return Shop(tmp_path, server.url, definitions=CHAIN, sources=("drops",))


@pytest.fixture
def project(shop: Shop) -> Project:
    return shop.project


def reconciler(project: Project, why: Callable[..., str | None] = lambda *_: None) -> Reconciler:
    return Reconciler(project, Requests(project), why)


def waiting(project: Project) -> set[str]:
    return JobQueue(project.redis, project.scope).waiting()


def work(project: Project, feature: str) -> str:
    """Do what the queue holds for a feature, as a worker would."""
    [job] = [job for job in waiting(project) if job.startswith(feature)]
    project.redis.lrem(f"rq:queue:{queue_of(project.scope)}", 1, job)
    [ticket] = project.work_queue.read([feature])
    return refresh_job.serve(project, ticket, job, SourceReading())


def test_a_job_lost_from_the_queue_is_made_again(project):
    Requests(project)("spend", "a came", None)
    at_work = reconciler(project)
    project.redis.delete(f"rq:queue:{queue_of(project.scope)}")
    at_work.tick(0.0)
    assert waiting(project) == set(), "a worker may have taken it just now"
    at_work.tick(LOST_AFTER_S)
    assert len(waiting(project)) == 1
    at_work.tick(LOST_AFTER_S * 2)
    assert len(waiting(project)) == 1


def test_what_a_killed_forgetting_has_left_is_ended_once_nobody_is_at_it_any_more(shop, project):
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0), (2, 0, 3.0)))
    store = project.definitions.store
    project.definitions.build()
    forgotten = Forgotten("5a17").with_entities([Entity("user_id", "1")])
    store.write_forgotten(forgotten.begun(["spend"]))
    assert "rows of forgotten entities may be left" in verify(store, ["spend"])[0].what
    at_work = reconciler(project)
    at_work.tick(0.0)
    assert waiting(project) == set(), "whoever forgets may be at it"
    at_work.tick(UNFORGOTTEN_AFTER_S)
    work(project, "spend")
    assert 1 not in store.read("spend")["user_id"].to_list()
    assert len(store.versions("spend")) == 1
    assert store.forgotten() == forgotten
    assert verify(store, ["spend"]) == []


def test_the_work_of_a_dead_worker_is_queued_again(project, monkeypatch):
    monkeypatch.setattr(protocol, "LEASE_MS", 30)
    Requests(project)("spend", "a came", None)
    [job] = waiting(project)
    project.redis.delete(f"rq:queue:{queue_of(project.scope)}")
    project.work_queue.start("spend", job)
    eventually(lambda: not project.work_queue.read(["spend"])[0].leased)
    at_work = reconciler(project)
    at_work.tick(0.0)
    at_work.tick(1.0)
    assert len(waiting(project)) == 1
    assert work(project, "spend") == "unchanged"


def test_after_a_failure_all_of_a_source_is_looked_at(shop, project, monkeypatch):
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "start", None)
    work(project, "spend")
    ticket = f"mlforge-work:{project.scope}:ticket:spend"
    whole_at = project.redis.hget(ticket, "whole_at")
    Requests(project).each({"spend": PendingRequest("a came", paths=frozenset(["a.parquet"]))})
    assert work(project, "spend") == "unchanged"
    assert project.redis.hget(ticket, "whole_at") == whole_at, "all was not looked at again"
    looked_at, refresh = [], project.definitions.refresh

    def fails_first(feature: str, *, options: Any, reading: Any) -> Any:
        looked_at.append(options.paths)
        if len(looked_at) == 1:
            raise DataError("boom")
        return refresh(feature, options=options, reading=reading)

    monkeypatch.setattr(project.definitions, "refresh", fails_first)
    named = frozenset({"b.parquet"})
    Requests(project).each({"spend": PendingRequest("b came", paths=named)})
    assert work(project, "spend") == "failed"
    enqueue(project, "spend", project.work_queue.requeue(shop.ticket("spend")))
    assert work(project, "spend") == "unchanged"
    assert looked_at == [named, None]
    (shop.folder / "drops").rename(shop.folder / "aside")
    Requests(project)("spend", "missing", None)
    assert work(project, "spend") == "unchanged"
    assert project.redis.hget(ticket, "whole_at") is None, "nothing could be looked at"


def test_what_is_behind_is_requested_once(project):
    at_work = reconciler(project, lambda _, __, feature, ___: "old" if feature == "spend" else None)
    at_work.tick(0.0)
    at_work.tick(1.0)
    at_work.tick(COMPARE_EVERY_S)
    assert [job.rpartition("-")[0] for job in waiting(project)] == ["spend"]


def test_a_refresh_for_another_reason_counts_from_the_file_that_it_took_in(shop, project):
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "start", None)
    assert work(project, "spend") == "refreshed"
    assert project.event_log.freshness("spend") is None, "it may have been there for long"
    served_at = shop.ticket("spend").served_at

    def dropped_later() -> bool:  # a file system's clock is behind by some milliseconds
        state = write(shop.folder / "drops" / "b.parquet", purchases((2, 0, 1.0))).stat()
        return max(state.st_mtime_ns, state.st_ctime_ns) // 1_000 > served_at

    eventually(dropped_later)
    Requests(project).remind("spend", "its rows must be renewed")
    assert work(project, "spend") == "refreshed"
    told = project.event_log.freshness("spend")
    assert (told.count, told.p50 * 1_000 <= clock.now() - served_at) == (1, True)


def test_drops_within_an_interval_of_publishing_become_one_version_when_it_is_over(
    redis, server, tmp_path
):
    definitions = several({"spend": "drops/"}, settings={"publish_every": "1h"})
    shop = Shop(tmp_path, server.url, definitions=definitions, sources=("drops",))
    project, at_work = shop.project, reconciler(shop.project)
    Requests(project)("spend", "start", None)
    assert work(project, "spend") == "unchanged", "no version, so the first drop does not wait"
    for name in "abc":
        write(shop.folder / "drops" / f"{name}.parquet", purchases((1, 0, 2.0)))
        Requests(project)("spend", f"{name} came", clock.now())
        if name == "a":
            assert work(project, "spend") == "refreshed"
    at_work.tick(0.0)
    assert waiting(project) == set()
    project.online.drop("spend")
    reconciler(project, behind).tick(0.0)
    assert work(project, "spend") == "resting"
    assert shop.online("spend", 1), "what the server has lost does not wait for the next version"
    assert (shop.store.list_versions("spend"), shop.ticket("spend").behind) == (["1.0.0"], True)
    ticket = f"mlforge-work:{project.scope}:ticket:spend"
    redis.hset(ticket, "rests_until", project.work_queue.now())
    at_work.tick(1.0)
    assert work(project, "spend") == "refreshed"
    assert shop.store.list_versions("spend") == ["1.0.0", "1.0.1"]
    write(shop.folder / "drops" / "d.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "d came", clock.now())
    assert waiting(project) == set()
    ask_at_once(project, ["spend"], "retry")
    assert work(project, "spend") == "refreshed"
    assert shop.store.list_versions("spend")[2:] == ["1.0.2"]
    (shop.folder / "definitions.py").write_text(definitions.replace('["7d"]', '["7d", "14d"]'))
    edited = Project.open(project.settings)
    edited.work_queue.end_rests(["spend"])
    Requests(edited)("spend", "definitions", None)
    assert work(edited, "spend") == "refreshed"
    assert shop.store.list_versions("spend")[3:] == ["1.1.0"]
    assert shop.ticket("spend").rests(project.work_queue.now())


def test_a_feature_does_not_rest_behind_a_job_during_which_somebody_asks_for_it_at_once(shop):
    work_queue = shop.project.work_queue
    Requests(shop.project)("spend", "a came", None)
    lease = work_queue.start("spend", work_queue.read(["spend"])[0].queued or "")
    ask_at_once(shop.project, ["spend"], "retry")
    assert lease is not None
    again = work_queue.done(lease, rest_us=10**9)
    assert again is not None
    assert shop.ticket("spend").rests_until == 0
    lease = work_queue.start("spend", again)
    work_queue.end_rests(["spend"])  # the definitions were edited
    Requests(shop.project)("spend", "definitions", None)
    assert lease is not None
    assert work_queue.done(lease, rest_us=10**9) is not None


def test_a_reader_is_requested_by_the_job_that_publishes_and_else_by_the_reconciler(chain):
    project = chain.project
    write(chain.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "a came", clock.now())
    [job] = waiting(project)
    lease = project.work_queue.start("spend", job)
    project.definitions.refresh("spend", attended=False)
    at_work = reconciler(project)
    at_work.tick(0.0)
    assert chain.ticket("peak").wanted == 0, "spend's job is about to request it"
    project.work_queue.done(lease)
    at_work.tick(COMPARE_EVERY_S)
    assert chain.ticket("peak").wanted == 1, "spend's job ended and has not"


def test_a_reader_that_is_at_work_already_counts_from_the_drop_that_its_publisher_tells(chain):
    project = chain.project
    refresh = project.definitions.refresh

    def told_meanwhile(feature: str, **options: Any) -> Any:
        built = refresh(feature, **options)
        request_readers(project, "spend", built.version, clock.now())
        return built

    for name, row in (("a", (1, 0, 2.0)), ("b", (2, 0, 1.0))):
        write(chain.folder / "drops" / f"{name}.parquet", purchases(row))
        refresh("spend", attended=False)
        Requests(project).remind("peak", "its rows must be renewed")
        project.definitions.refresh = told_meanwhile
        assert work(project, "peak") == "refreshed"
        project.definitions.refresh = refresh
        assert work(project, "peak") == "unchanged", "the publisher's request"
    assert project.event_log.freshness("peak").count == 1


def test_rows_lost_online_are_pushed_again(shop, project):
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "a came", None)
    assert work(project, "spend") == "refreshed"
    assert behind(project.definitions.store, project.online, "spend") is None
    project.online.drop("spend")
    assert {f.feature: f.state for f in gather(project).features}["spend"] == "pushing"
    reconciler(project, behind).tick(0.0)
    assert work(project, "spend") == "refreshed"
    assert shop.online("spend", 1)


def test_a_hold_that_is_lifted_leads_to_a_refresh(shop, project):
    for name in "abc":
        write(shop.folder / "drops" / f"{name}.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "they came", None)
    work(project, "spend")
    for name in "ab":
        (shop.folder / "drops" / f"{name}.parquet").unlink()
    for closed_at, tells in ((10, 1), (10, 1), (None, 1), (20, 2)):
        Requests(project)("spend", "they went", closed_at)
        assert work(project, "spend") == "held"
        told = [entry.kind for entry in project.event_log.recent()]
        assert told.count("held") == tells, "once for each drop that it keeps back"
    at_work = reconciler(project)
    at_work.tick(0.0)
    assert waiting(project) == set()
    project.definitions.store.write_books(
        "spend", replace(project.definitions.store.books("spend"), hold=None)
    )
    at_work.tick(COMPARE_EVERY_S)
    assert len(waiting(project)) == 1


def test_a_feature_that_other_definitions_let_go_of_is_tried_again(
    redis,
    server,
    tmp_path,
    monkeypatch,
):
    shared = CHAIN.replace('name="shop"', 'name="bank", partial=True')
    bank = Shop(tmp_path, server.url, definitions=shared, sources=("drops",))
    project, store = bank.project, bank.store
    write(bank.folder / "drops/a.parquet", purchases((1, 0, 2.0)))
    with store.lock("spend"):
        store.write_books("spend", Books(keeper=FeatureKeeper("shop", "another")))
    store.write_defined_names("shop", DefinedNames(frozenset({"spend"})))
    at_work = reconciler(project)
    at_work.tick(0.0)
    Requests(project)("spend", "a came", None)
    while not bank.ticket("spend").parked:
        work(project, "spend")
        enqueue(project, "spend", project.work_queue.requeue(bank.ticket("spend")))
    work(project, "spend")
    assert "'shop', which share this store" in bank.ticket("spend").error
    monkeypatch.setattr(tickets, "RESUME_AFTER_S", (0,))
    at_work.tick(COMPARE_EVERY_S)
    assert waiting(project) == set()
    store.write_defined_names("shop", DefinedNames())
    at_work.tick(2 * COMPARE_EVERY_S)
    assert len(waiting(project)) == 1
    assert work(project, "spend") == "refreshed"
    assert store.books("spend").keeper.name == "bank"
    at_work.tick(3 * COMPARE_EVERY_S)
    assert not any(job.startswith("spend") for job in waiting(project))


def gone_by(project: Project, hours: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server's clock be so much later."""
    later = project.work_queue.now() + int(hours * 3_600_000_000)
    monkeypatch.setattr(project.work_queue, "now", lambda: later)


def test_a_feature_that_is_gone_is_served_for_a_while_and_dropped_then(shop, project, monkeypatch):
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "a came", None)
    work(project, "spend")
    another = pl.DataFrame({"user_id": [7], "x": [1]})
    project.online.write_batch("of_another_project", another.to_dicts(), ["user_id"])
    del project.definitions.features["spend"]
    at_work = reconciler(project)
    at_work.tick(0.0)
    assert shop.online("spend", 1)
    [gone] = project.gone()
    assert gone.feature == "spend"
    assert gone.until - gone.since == 3_600_000_000
    assert any("spend is gone from the definitions" in text for text in gather(project).warnings)
    with monkeypatch.context() as later:
        gone_by(project, 0.9, later)
        at_work.tick(COMPARE_EVERY_S)
        assert shop.online("spend", 1)
    with monkeypatch.context() as later:
        gone_by(project, 1.1, later)
        replace(project, hash="another").make_current()
        at_work.tick(COMPARE_EVERY_S * 2)
        assert shop.online("spend", 1), "these definitions do not decide"
        project.make_current()
        at_work.tick(COMPARE_EVERY_S * 3)
    assert shop.online("spend", 1) is None
    assert project.online.read("of_another_project", {"user_id": 7}) == {"x": 1}
    assert project.owned() == set()
    assert project.gone() == []


def test_a_feature_that_comes_back_within_the_while_costs_nothing_and_counts_anew(
    shop, project, monkeypatch
):
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "a came", None)
    work(project, "spend")
    feature = project.definitions.features.pop("spend")
    at_work = reconciler(project, behind)
    at_work.tick(0.0)
    project.definitions.features["spend"] = feature
    at_work.tick(COMPARE_EVERY_S)
    assert waiting(project) == set(), "nothing is behind"
    del project.definitions.features["spend"]
    gone_by(project, 2, monkeypatch)
    at_work.tick(COMPARE_EVERY_S * 2)
    assert shop.online("spend", 1), "the while begins anew"


def test_a_row_that_is_gone_is_kept_alive_beyond_its_time_to_live(shop, project, monkeypatch):
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "a came", None)
    work(project, "spend")
    before = project.online.books("spend").renewed_at
    del project.definitions.features["spend"]
    with clock.fixed(clock.now() + project.online.ttl * 400_000):
        with monkeypatch.context() as others:
            another = StoreIdentity("another-store", 0)
            others.setattr(type(project.definitions.store), "identity", lambda _: another)
            reconciler(project).tick(0.0)
        assert project.online.books("spend").renewed_at == before, "another store owns them"
        reconciler(project).tick(0.0)
    assert project.online.books("spend").renewed_at > before


def test_what_stays_behind_is_requested_less_and_less_often(project):
    at_work = reconciler(project, lambda _, __, feature, ___: "old" if feature == "spend" else None)
    jobs = 0
    for round in range(61):  # five minutes
        at_work.tick(round * COMPARE_EVERY_S)
        for job in waiting(project):
            jobs += 1
            project.redis.lrem(f"rq:queue:{queue_of(project.scope)}", 1, job)
            project.work_queue.done(project.work_queue.start("spend", job))
    assert 4 <= jobs <= 10


def test_requests_wait_while_the_server_is_away(project, monkeypatch):
    requests = Requests(project)
    client = Redis(port=1, retry=None)
    with monkeypatch.context() as away:
        away.setitem(vars(project), "work_queue", protocol.WorkQueue(client, project.scope))
        requests("spend", "a came", 50)
        requests("spend", "b came", 40)
    assert waiting(project) == set()
    requests.flush()
    [ticket] = project.work_queue.read(["spend"])
    assert (ticket.wanted, ticket.reason, ticket.closed_at) == (1, "b came", 40)
    assert len(waiting(project)) == 1


@pytest.mark.parametrize("end", ["deleted", "renamed"])
def test_a_row_that_somebody_deleted_is_missed_by_a_count_and_written_again(end, shop, project):
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0), (2, 0, 3.0)))
    Requests(project)("spend", "a came", None)
    work(project, "spend")
    at_work = reconciler(project, behind)
    at_work.tick(0.0)
    if end == "deleted":
        project.online.delete("spend", {"user_id": 2})
    else:
        row = f"mlforge:spend:{key_hash({'user_id': 2})}"
        project.redis.rename(row, f"{row}.bak")
    at_work.tick(COUNTED_S)
    assert project.online.books("spend").evidence == INCOMPLETE
    with pytest.raises(NotServed):
        get_online_features(["spend"], [{"user_id": 2}], project.online)
    with clock.fixed(clock.now() + RECOUNT_AFTER_US):
        at_work.tick(2 * COUNTED_S)
        assert work(project, "spend") == "refreshed"
    assert shop.online("spend", 2)
    assert project.online.books("spend").evidence == project.online.evidence()


def test_rows_that_are_written_while_they_are_counted_are_not_missed(shop, project, monkeypatch):
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "a came", None)
    work(project, "spend")

    def counted_late(online: OnlineStore, features: object) -> dict[str, int]:
        online.renew("spend", online.books("spend").target)
        return {"spend": 0}

    monkeypatch.setattr(type(project.online), "rows_by_feature", counted_late)
    reconciler(project).tick(0.0)
    assert project.online.books("spend").evidence == project.online.evidence()


def test_requests_that_the_server_forgot_are_made_again(project):
    """Flushed, evicted or restored from an old copy: the rows online do not tell, they may lie elsewhere."""
    at_work = reconciler(project)
    at_work.requests("spend", "a came", None)
    copy = project.redis.dump(key := project.redis.keys("*ticket:spend")[0])
    at_work.requests("spend", "b came", None)
    project.redis.flushall()
    at_work.tick(0.0)
    assert len(waiting(project)) == 1
    assert project.work_queue.read(["spend"])[0].behind
    at_work.requests("spend", "c came", None)
    project.redis.flushall()
    project.redis.restore(key, 0, copy)
    at_work.tick(1.0)
    assert project.work_queue.read(["spend"])[0].wanted == 2, "an old copy is not up to date"
    at_work.tick(2.0)
    assert project.work_queue.read(["spend"])[0].wanted == 2, "and is told so once"
    of_a = PendingRequest("a changed", paths=frozenset(["a.parquet"]))
    at_work.requests.each({"spend": of_a})
    project.redis.restore(key, 0, copy, replace=True)
    at_work.requests.each({"spend": of_a})
    [ticket] = project.work_queue.read(["spend"])
    assert (ticket.wanted, ticket.reason) == (3, "the server lost a request"), "it is about all"


def test_one_file_or_all_files_leave_quarantine(project):
    store = project.definitions.store
    bad = {name: Quarantined(name, "damaged", "", 1) for name in ("a", "b")}
    with store.lock("spend"):
        store.write_books("spend", Books(quarantine=bad))
    leave_quarantine(store, "spend", "a")
    assert store.books("spend").quarantine.keys() == {"b"}
    leave_quarantine(store, "spend")
    assert store.books("spend").quarantine == {}


def test_who_waits_asks_again_when_the_server_forgot_that(project):
    for _ in range(3):
        Requests(project)("spend", "a came", None)
    waits = threading.Thread(target=wait_for, args=(project, ["spend"], None, 90), daemon=True)
    waits.start()
    eventually(lambda: project.work_queue.read(["spend"])[0].wanted == 4)
    project.redis.flushall()
    eventually(lambda: waiting(project))
    assert work(project, "spend") == "unchanged"
    waits.join(60)
    assert not waits.is_alive()


def test_who_waits_for_a_file_is_told_from_when_its_own_rows_count(redis, server, tmp_path):
    definitions = several({"spend": "drops/"}, {"spend": {"interval": "1d"}})
    shop = Shop(tmp_path, server.url, definitions=definitions, sources=("drops",))
    soon = int((clock.now() - to_us(datetime(2024, 1, 1, tzinfo=UTC))) / SECOND_US) + 60
    files = {
        name: write(shop.folder / f"drops/{name}.parquet", purchases((1, second, 2.0)))
        for name, second in (("old", 0), ("new", soon))
    }
    with ThreadPoolExecutor() as pool:
        told = {
            name: pool.submit(wait_for, shop.project, ["spend"], file, 90)
            for name, file in files.items()
        }
        while not all(each.done() for each in told.values()):
            eventually(lambda: waiting(shop.project) or all(e.done() for e in told.values()))
            if waiting(shop.project):
                work(shop.project, "spend")
    [[old], [new]] = [each.result() for each in told.values()]
    assert (old.problem, old.counts_from, new.problem) == (None, None, None)
    assert new.counts_from is not None


@pytest.mark.parametrize("off", [-HOUR_US, HOUR_US])
def test_a_host_whose_clock_is_off_has_the_time_of_the_server(project, off):
    with clock.shifted(off), project.common_clock() as told:
        assert abs(told - off) < HOUR_US / 2
        assert abs(clock.now() - project.work_queue.now()) < HOUR_US / 2


@pytest.mark.parametrize("text", ["soon", "0", "-3", "1.5"])
def test_a_job_timeout_that_is_no_number_of_seconds_is_refused(text):
    with pytest.raises(MlforgeError, match=r"MLFORGE_JOB_TIMEOUT=.* is not a number of seconds"):
        Settings.read({"REDIS_URL": "redis://x", "MLFORGE_JOB_TIMEOUT": text})


def test_which_definitions_decide_is_said_again_after_a_flush(project):
    taken = project.make_current()
    assert taken.others_before
    assert not project.make_current().others_before
    project.redis.flushall()
    at_work = replace(reconciler(project), since=taken.since)
    at_work.tick(0.0)
    assert (
        project.redis.get(f"mlforge-work:{project.scope}:definitions").decode().split()[0]
        == project.hash
    )


def test_whoever_resigns_leaves_the_say_to_what_is_taken_up_next(project):
    other = replace(project, hash="other")
    taken = project.make_current()
    other.resign()
    assert project.is_current(), "only who decides can resign"
    [ticket] = project.work_queue.read(["spend"])
    assert project.ticket_if_current("spend") == ticket
    project.resign()
    assert not project.is_current()
    assert project.ticket_if_current("spend") is None
    project.stay_current(taken.since)
    assert not project.is_current()
    assert project.make_current().since > taken.since
    assert project.is_current()


@pytest.mark.parametrize("name", ["owned", "gone"])
def test_a_list_of_features_of_another_type_is_made_anew(project, name):
    key = f"mlforge-work:{project.scope}:{name}"
    project.redis.delete(key)
    project.redis.rpush(key, "x")
    assert (project.owned(), project.gone()) == (set(), [])
    reconciler(project).tick(0.0)
    project.claim("spend")
    assert "spend" in project.owned()


@pytest.mark.parametrize(
    "there", [b"", b"\xff\xfe", b"x soon", b"x " + b"9" * 30, ["list"], {"a": "hash"}]
)
def test_a_key_that_names_no_definitions_is_written_over(project, there):
    taken = project.make_current()
    key = f"mlforge-work:{project.scope}:definitions"
    project.redis.delete(key)
    match there:
        case bytes():
            project.redis.set(key, there)
        case list():
            project.redis.rpush(key, *there)
        case dict():
            project.redis.hset(key, mapping=there)
    is_current = project.is_current()
    assert (project.ticket_if_current("spend") is not None) is is_current
    replace(reconciler(project), since=taken.since).tick(0.0)
    assert project.redis.get(key).decode() == f"{project.hash} {taken.since}"
    assert project.is_current()
    assert project.make_current().since > taken.since


def test_definitions_that_an_old_copy_of_the_server_names_do_not_decide_again(project):
    before = replace(project, hash="before")
    before.make_current()
    copy = project.redis.dump(f"mlforge-work:{project.scope}:definitions")
    taken = project.make_current()
    assert not before.is_current()
    project.redis.restore(f"mlforge-work:{project.scope}:definitions", 0, copy, replace=True)
    assert not project.is_current()
    replace(reconciler(project), since=taken.since).tick(0.0)
    assert project.is_current()
    before.stay_current(taken.since - 1)
    assert project.is_current(), "a watcher of another release is not asked"


@pytest.mark.parametrize("error", [MemoryError(), OnlineError("out of memory"), OSError(5, "io")])
def test_what_the_machine_lacks_is_not_the_features_fault(error, project, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(project.definitions, "refresh", fail)
    Requests(project)("spend", "a came", None)
    assert work(project, "spend") == "failed"
    [ticket] = project.work_queue.read(["spend"])
    assert (ticket.failures, ticket.interruptions) == (0, 1)


def test_an_outage_is_told_once_in_the_event_log_however_long_it_lasts_and_whatever_is_dropped(
    shop, project, monkeypatch
):
    """Else drops and deeds of people would be pushed out of it."""
    faults: list[Exception] = []
    monkeypatch.setattr(project.definitions, "refresh", raising(faults))

    def told(*more: Exception) -> list[str]:
        since = project.event_log.last_id()
        for fault in more:
            faults.append(fault)
            Requests(project)("spend", "a came", None)
            assert work(project, "spend") == "failed"
        return [entry.details["error"] for entry in project.event_log.read(since)]

    full, away = StoreUnavailable("full, at 1"), SourceUnavailable("away")
    assert told(full, StoreUnavailable("full, at 2"), away, full, away) == [
        "StoreUnavailable: full, at 1",
        "SourceUnavailable: away",
    ]
    assert shop.ticket("spend").error == "SourceUnavailable: away"
    with monkeypatch.context() as mended:
        mended.setattr(
            project.definitions, "refresh", Definitions.refresh.__get__(project.definitions)
        )
        Requests(project)("spend", "a came", None)
        assert work(project, "spend") == "unchanged"
    assert told(full) == ["StoreUnavailable: full, at 1"], "there was none in between"


def test_a_fault_of_a_feature_is_told_once_and_again_for_the_next_drop(shop, project, monkeypatch):
    monkeypatch.setattr(project.definitions, "refresh", raising([DataError("boom")] * 4))
    for told in (1, 2):
        Requests(project)("spend", "a came", None)
        assert work(project, "spend") == "failed"
        enqueue(project, "spend", project.work_queue.requeue(shop.ticket("spend")))
        assert work(project, "spend") == "failed"
        assert len(project.event_log.read("0")) == told


def raising(faults: list[Exception]) -> Callable[..., None]:
    """A refresh that raises each of the faults in its turn."""

    def fail(*_: object, **__: object) -> None:
        raise faults.pop(0)

    return fail


def test_a_push_of_a_feature_that_was_dropped_meanwhile_is_owned_and_so_dropped_again(
    shop, project, monkeypatch
):
    """As a worker does that was stopped in the middle of it, and goes on later."""
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "a came", None)
    pushed = project.definitions.push

    def stopped(name: str, **options: Any) -> object:
        project.disown(name)
        return pushed(name, **options)

    monkeypatch.setattr(project.definitions, "push", stopped)
    work(project, "spend")
    assert shop.online("spend", 1)
    assert project.owned() == {"spend"}


def test_a_panic_in_a_job_is_a_failure_like_any_other(project, monkeypatch):
    def panic(*_: object, **__: object) -> None:
        raise pl.exceptions.PanicException("index out of bounds")

    monkeypatch.setattr(project.definitions, "refresh", panic)
    Requests(project)("spend", "a came", None)
    assert work(project, "spend") == "failed"
    [ticket] = project.work_queue.read(["spend"])
    assert ticket.failures == 1
    assert "index out of bounds" in ticket.error


def fail_to_refresh(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(*_: object, **__: object) -> None:
        raise DataError("the sum does not fit")

    monkeypatch.setattr(project.definitions, "refresh", overflow)


def test_a_feature_whose_refresh_fails_goes_on_being_served(shop, project, monkeypatch):
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "a came", None)
    work(project, "spend")
    project.online.drop("spend")
    fail_to_refresh(project, monkeypatch)
    Requests(project)("spend", "b came", None)
    assert work(project, "spend") == "failed"
    assert shop.online("spend", 1)
    assert "the sum does not fit" in shop.ticket("spend").error


def test_a_push_that_fails_after_a_failed_refresh_does_not_hide_why(shop, project, monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("refused")

    fail_to_refresh(project, monkeypatch)
    monkeypatch.setattr(project.definitions, "push", unreachable)
    Requests(project)("spend", "a came", None)
    assert work(project, "spend") == "failed"
    ticket = shop.ticket("spend")
    assert (ticket.failures, ticket.interruptions) == (1, 0)
    assert "the sum does not fit" in ticket.error


def test_rows_of_a_parked_feature_are_pushed_when_they_are_behind(shop, project, monkeypatch):
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    Requests(project)("spend", "a came", None)
    work(project, "spend")
    fail_to_refresh(project, monkeypatch)
    Requests(project)("spend", "b came", None)
    work(project, "spend")
    while not shop.ticket("spend").parked:
        enqueue(project, "spend", project.work_queue.requeue(shop.ticket("spend")))
        work(project, "spend")
    project.online.drop("spend")
    reconciler(project, behind).tick(0.0)
    assert waiting(project) == set(), "a parked feature rests a while"
    monkeypatch.setattr(tickets, "RESUME_AFTER_S", (0,))
    reconciler(project, behind).tick(0.0)
    assert work(project, "spend") == "parked"
    assert shop.online("spend", 1)
    assert shop.ticket("spend").parked
    assert "the sum does not fit" in shop.ticket("spend").error


WHOLE_AMOUNTS = (
    CHAIN.replace(
        '"user_id", "at", "amount")', '"user_id", "at", amount=pl.col("amount").cast(pl.Int64))'
    )
    .replace(
        "defs = Definitions(",
        """
@feature(keys=[], source=peak, timestamp="at", metrics=[Rolling("30d", {"user_id": ["count"]})])
def activity(df: pl.DataFrame) -> pl.DataFrame:
    return df


defs = Definitions(""",
    )
    .replace("[peak, spend]", "[activity, peak, spend]")
)


def test_a_feature_says_which_one_that_it_is_made_from_was_given_up_and_what_is_read_of_it(
    redis,
    server,
    tmp_path,
):
    shop = Shop(tmp_path, server.url, definitions=WHOLE_AMOUNTS, sources=("drops",))
    project = shop.project
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    project.definitions.build()
    assert [feature.upstream for feature in gather(project).features] == [None, None, None]
    write(shop.folder / "drops" / "b.parquet", purchases((1, 60, 9e18), (1, 120, 9e18)))
    Requests(project)("spend", "b came", None)
    assert work(project, "spend") == "failed"
    said = {feature.feature: feature.upstream for feature in gather(project).features}
    assert said["peak"].startswith("spend is failing: ")
    while not shop.ticket("spend").parked:
        enqueue(project, "spend", project.work_queue.requeue(shop.ticket("spend")))
        assert work(project, "spend") == "failed"
    said = {feature.feature: feature.upstream for feature in gather(project).features}
    why = "does not fit into Int64; cast the column to Float64 in the feature's function"
    assert said["spend"] is None
    assert said["peak"].startswith("spend is parked: ")
    assert said["activity"].startswith("spend, which peak is made from, is parked: ")
    for name in ("peak", "activity"):
        assert why in said[name]
        assert said[name].endswith("; 1.0.0 of it is what is read")
        assert f"{name}: {said[name]}" in shop.ask("status").stdout
        assert shop.store.read(name).height == 1, "it goes on with what is served"


def test_a_feature_that_cannot_be_pruned_is_refreshed_all_the_same(shop, project):
    write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    store = project.definitions.store
    with store.lock("spend"):
        store.write_books("spend", Books(pins=("not a version",)))
    Requests(project)("spend", "a came", None)
    assert work(project, "spend") == "refreshed"
    refresh_job.tidy_up(project, ["spend"])
    assert shop.ticket("spend").failures == 0
    assert shop.online("spend", 1)


def test_a_server_that_goes_away_during_a_push_is_not_the_features_fault(project, monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(project.definitions, "push", unreachable)
    Requests(project)("spend", "a came", None)
    assert work(project, "spend") == "failed"
    [ticket] = project.work_queue.read(["spend"])
    assert (ticket.failures, ticket.interruptions) == (0, 1)


@pytest.mark.parametrize("cheaply", [True, False])
def test_rows_are_counted_where_that_is_cheap_alone(project, monkeypatch, cheaply):
    counted = []
    count = type(project.online).rows_by_feature
    monkeypatch.setattr(type(project.online), "counts_cheaply", cheaply)
    monkeypatch.setattr(
        type(project.online),
        "rows_by_feature",
        lambda online, features: counted.append(1) or count(online, features),
    )
    reconciler(project).tick(0.0)
    assert counted == [1] * cheaply


@pytest.mark.parametrize(
    ("at_work", "counted_at"),
    [
        ([], [0.0, 10.0, 59.0]),
        ([0.0, 1.0], [4.0, 59.0]),
        ([0.0, 1.0, 3.0, 4.0, 10.0, 59.0, 60.0], [60.0]),
    ],
)
def test_rows_are_counted_between_drops_or_a_minute_later(
    project, monkeypatch, at_work, counted_at
):
    counted, now_s = [], 0.0

    def count(online: OnlineStore, features: object) -> dict[str, int]:
        counted.append(now_s)
        return {}

    def read_tickets(*_: object, **__: object) -> list[tickets.Ticket]:
        left_alone = tickets.Ticket("peaks", wanted=1, rests_until=1 << 50)
        return [left_alone, tickets.Ticket("spend", leased=now_s in at_work)]

    monkeypatch.setattr(type(project.online), "rows_by_feature", count)
    monkeypatch.setattr(Reconciler, "_read_tickets", read_tickets)
    rounds = reconciler(project)
    for now_s in (0.0, 1.0, 3.0, 4.0, 10.0, 59.0, 60.0):
        rounds.tick(now_s)
    assert counted == counted_at

"""Audits in the background: while all is quiet, out of the way of work, and loud when something is wrong."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from mlforge.core import clock
from mlforge.frames.encoding import key_hash
from tests.support.workers import Shop, eventually, purchases, write
from worker.reconcile.audit_scheduler import Auditor
from worker.service.embedded_redis import EmbeddedServer
from worker.state.ticket import Ticket

CALM = [Ticket("spend")]


@pytest.fixture
def shop(server: EmbeddedServer, redis: Redis, tmp_path: Path) -> Iterator[Shop]:
    """A shop whose feature is built and pushed; nothing runs."""
    made = Shop(tmp_path, server.url)
    write(made.folder / "drops/a.parquet", purchases((1, 0, 2.0), (2, 5, 3.0)))
    made.project.definitions.build(["spend"], online=True)
    yield made
    made.stop()


@pytest.fixture
def auditor(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Auditor]:
    """An auditor that starts at once; its processes find the shop in the environment."""
    for name in ("REDIS_URL", "MLFORGE_DEFINITIONS"):
        monkeypatch.setenv(name, shop.environment[name])
    made = Auditor(shop.project, every_s=3600, quiet_s=0)
    yield made
    made.stop()


def running(auditor: Auditor) -> subprocess.Popen[bytes] | None:
    return auditor._process


def ended(auditor: Auditor) -> bool:
    auditor.tick(CALM)
    return running(auditor) is None


def test_a_quiet_feature_is_proven_once_in_a_while(shop: Shop, auditor: Auditor) -> None:
    auditor.tick(CALM)
    assert running(auditor) is not None
    eventually(lambda: ended(auditor), within=60)
    note = shop.store.audit("spend")
    assert note is not None
    assert (note.is_proof, note.version, note.entities, note.skipped) == (True, "1.0.0", 2, ())
    assert auditor._rests_until > auditor._rests_until_work, "all that is served is proven"
    auditor.give_way()
    assert auditor._rests_until == auditor._rests_until_work, "there may be a version to prove"
    auditor._rests_until = 0
    auditor.tick(CALM)
    assert running(auditor) is None, "it is audited once in every_s seconds"
    auditor._tried = {}
    assert "spend" not in auditor._due(time.monotonic())
    with clock.fixed(note.at - 1):
        assert "spend" in auditor._due(time.monotonic()), "the clock was ahead when it was audited"


@pytest.mark.slow
def test_one_process_audits_several_features_and_what_it_has_no_time_for_is_due_again(
    shop: Shop, auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(shop.folder / "slow/a.parquet", purchases((1, 0, 2.0)))
    shop.project.definitions.build(["slow"])
    in_a_hurry = (
        "import sys, worker.reconcile.audit_scheduler as a; a.SPAN_S = -1; a.main(sys.argv[1:])"
    )
    with monkeypatch.context() as hurried:
        hurried.setattr(
            "worker.reconcile.audit_scheduler.bound_to_parent",
            lambda command: [*command[:3], in_a_hurry, *command[4:]],
        )
        auditor.tick(CALM)
        eventually(lambda: ended(auditor), within=60)
    audited = [name for name in ("slow", "spend") if shop.store.audit(name)]
    assert audited == list(auditor._tried) == ["slow"]
    auditor._rests_until, auditor._tried, auditor.every_s = 0, {}, 1e-6
    auditor.tick(CALM)
    eventually(lambda: ended(auditor), within=60)
    assert shop.store.audit("spend") is not None
    assert set(auditor._tried) == {"slow", "spend"}


def test_an_audit_gives_way_to_work_at_once_and_is_made_up_for(
    shop: Shop, auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr("worker.reconcile.audit_scheduler.bound_to_parent", lambda command: endless)
    auditor.tick(CALM)
    process = running(auditor)
    assert process is not None
    with monkeypatch.context() as at_once:
        at_once.setattr(Auditor, "_all_is_proven", lambda _: pytest.fail("a drop waits for that"))
        auditor.give_way()
    assert process.poll() is not None, "a request does not wait for an audit"
    auditor._rests_until = 0
    auditor.tick(CALM)
    assert running(auditor) is not None
    auditor.tick([Ticket("spend", wanted=2, served=1)])
    assert running(auditor) is None, "nor does work that somebody else asked for"
    assert shop.store.audit("spend") is None


def test_a_drop_does_not_wait_while_features_are_looked_up_for_an_audit(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*_: object) -> tuple[str, ...]:
        drop = threading.Thread(target=auditor.give_way)
        drop.start()
        drop.join(60)
        assert not drop.is_alive()
        return ("spend",)

    monkeypatch.setattr(Auditor, "_due", meanwhile)
    auditor.tick(CALM)
    assert running(auditor) is None, "work has arrived meanwhile"


def test_nothing_is_audited_before_it_has_been_quiet_for_a_while(auditor: Auditor) -> None:
    auditor.quiet_s = 3600
    auditor.tick(CALM)
    assert running(auditor) is None


@pytest.mark.slow
def test_an_audit_that_takes_too_long_or_too_much_memory_is_ended(
    shop: Shop, auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "import time; print('spend', flush=True); time.sleep(600)"
    with monkeypatch.context() as patched:
        scheduler = "worker.reconcile.audit_scheduler"
        patched.setattr(f"{scheduler}.bound_to_parent", lambda _: [sys.executable, "-c", endless])
        patched.setattr(Auditor, "_due", lambda *_: ("spend", "next"))
        patched.setattr(f"{scheduler}.TIMEOUT_S", 0)
        auditor.tick(CALM)
        process = running(auditor)
        assert process is not None
        select.select([process.stdout], [], [])
        auditor.tick(CALM)
    assert process.poll() is not None
    assert list(auditor._tried) == ["spend"], "what was behind it has its turn next"
    code = (
        "import worker.reconcile.audit_scheduler as a; a.MEMORY = 300 << 20; import os\n"
        "a._audit = lambda *_: len(bytearray(1 << 30))\n"
        "a.main(['spend'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=shop.folder,
        env=shop.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "MemoryError" in done.stderr


@pytest.mark.slow
def test_a_wrong_row_is_an_alarm_until_it_is_right(
    shop: Shop,
    auditor: Auditor,
    redis: Redis,
) -> None:
    key = f"mlforge:spend:{key_hash({'user_id': 1})}"
    honest = redis.get(key)
    assert isinstance(honest, bytes)
    redis.set(key, json.dumps(json.loads(honest) | {"amount__sum__7d": 9.5}))
    last = shop.project.event_log.last_id()
    auditor.tick(CALM)
    eventually(lambda: ended(auditor), within=60)
    [entry] = shop.project.event_log.read(last)
    assert (entry.kind, entry.feature, entry.details["mismatches"]) == ("mismatch", "spend", 1)
    asked = shop.ask("status")
    assert asked.returncode == 1
    assert "WRONG: an audit of 1.0.0 found 1 values or rows" in asked.stdout
    assert "online amount__sum__7d" in asked.stdout
    document = json.loads(shop.ask("status", "--json").stdout)
    [spend] = [f for f in document["features"] if f["feature"] == "spend"]
    assert (spend["state"], spend["audit"]["mismatches"], document["well"]) == ("wrong", 1, False)
    redis.set(key, honest)
    assert shop.ask("audit", "spend").returncode == 0
    asked = shop.ask("status")
    assert "WRONG" not in asked.stdout
    [told] = [line for line in asked.stdout.splitlines() if line.startswith("spend")]
    assert told.endswith(" s"), "proven so long ago"


@pytest.mark.slow
def test_a_running_watcher_audits_and_a_drop_goes_through_meanwhile(shop: Shop) -> None:
    shop.start("watch", "--audit-every", "0.5")
    shop.start("worker")
    eventually(lambda: shop.store.audit("spend"), within=90)
    write(shop.folder / "drops/b.parquet", purchases((1, 60, 5.0)))
    eventually(lambda: (row := shop.online("spend", 1)) and row["amount__sum__7d"] == 7.0)
    proven = eventually(
        lambda: (now := shop.store.audit("spend")) and now.version == "1.0.1" and now, within=90
    )
    assert proven.is_proof
    assert time.time() - proven.at / 1e6 < 60

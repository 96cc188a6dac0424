"""Load that goes on: rows stay fresh, nothing is lost, memory stays flat."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.invariant import Witness, assert_invariant
from tests.support.workers import Shop, eventually, purchases, running_shop, several, write
from worker.service.embedded_redis import EmbeddedServer

FEATURES = [f"f{number}" for number in range(5)]
USERS = [{"user_id": user} for user in range(3)]
DROPS_A_SECOND = 20


@pytest.fixture
def shop(server: EmbeddedServer, tmp_path: Path) -> Iterator[Shop]:
    """Five features, each with a source; a watcher and two workers."""
    definitions = several({name: f"{name}/" for name in FEATURES})
    commands = (["watch"], ["worker"], ["worker"])
    with running_shop(
        server, tmp_path, commands, definitions=definitions, sources=FEATURES
    ) as made:
        eventually(lambda: all(made.ticket(name).served for name in FEATURES))
        yield made


def sustained(shop: Shop, seconds: int, freshest_s: float, record) -> None:
    """Drop so many files a second in turn, then compare all; the figures are told at the end of the run."""
    memory = [memory_of(shop)]
    began = time.monotonic()
    with Witness(shop.project, dict.fromkeys(FEATURES, USERS), pruned=True, every_s=0.25):
        for number in range(seconds * DROPS_A_SECOND):
            behind = began + number / DROPS_A_SECOND - time.monotonic()
            time.sleep(max(0.0, behind))  # the load itself: so many a second
            name = FEATURES[number % len(FEATURES)]
            write(
                shop.folder / name / f"{number}.parquet",
                purchases((number % 50, number, 1.0), (number % 3, number, 2.0)),
            )
            if number % (seconds * DROPS_A_SECOND // 3) == 0:
                memory.append(memory_of(shop))
        dropped_in = time.monotonic() - began
        took = assert_invariant(shop.project, pruned=True, deadline_s=freshest_s)
    memory.append(memory_of(shop))
    fresh = [shop.project.event_log.freshness(name) for name in FEATURES]
    record(
        f"{seconds} s of {DROPS_A_SECOND} drops a second over {len(FEATURES)} features",
        f"dropped in {dropped_in:.1f} s, settled {took:.1f} s later; freshness p50 "
        f"{max(each.p50 for each in fresh) / 1e3:.2f} s, p99 {max(each.p99 for each in fresh) / 1e3:.2f} s; "
        f"{sum(len(shop.versions(name)) for name in FEATURES)} versions kept, "
        f"{len(shop.log('refreshed', changed=True))} made; memory "
        + " -> ".join(f"{megabytes:.0f}" for megabytes in memory)
        + " MB",
    )
    assert max(each.p99 for each in fresh) <= freshest_s * 1_000
    assert memory[-1] - memory[len(memory) // 2] < 50, memory


def memory_of(shop: Shop) -> float:
    """What the shop's processes hold themselves, in MB; jobs run in forks that come and go."""
    total = 0.0
    for process in shop.processes:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                total += int(line.split()[1]) / 1e3
    return total


@pytest.mark.slow
def test_twenty_drops_a_second_are_taken_in_while_they_come(shop, record_property):
    sustained(shop, seconds=3, freshest_s=20, record=record_property)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_twenty_drops_a_second_for_half_a_minute_stay_fresh_and_memory_flat(shop, record_property):
    sustained(shop, seconds=30, freshest_s=30, record=record_property)

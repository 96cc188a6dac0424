"""Two projects on one server, whatever they and their folders are called, never see each other's work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis

from mlforge.errors import OwnedElsewhere
from tests.support.workers import RQ_WORKER, Shop, eventually, purchases, requested, several, write
from worker.monitor.status import gather
from worker.project import Project
from worker.queue import JobQueue, enqueue, queue_of
from worker.service.embedded_redis import EmbeddedServer
from worker.state.figures import add_each


def shop_in(folder: Path, url: str, prefix: str, features: dict[str, str]) -> Shop:
    folder.mkdir(parents=True)
    text = several(features, settings={}).replace(
        'name="shop",',
        f'name="shop",\n    gone_after="1ms",\n    online_store=RedisStore.from_url({url!r}, prefix={prefix!r}),',
    )
    text = text.replace(
        "from mlforge import", "from mlforge.online import RedisStore\nfrom mlforge import"
    )
    return Shop(folder, url, definitions=text, sources=sorted(set(features.values())))


@pytest.fixture
def pair(server: EmbeddedServer, redis: Redis, tmp_path: Path) -> Iterator[tuple[Shop, Shop]]:
    """Two projects of one name, in folders of one name, with a feature of one name."""
    made = (
        shop_in(tmp_path / "a/project", server.url, "first", {"spend": "drops", "mine": "drops"}),
        shop_in(tmp_path / "b/project", server.url, "second", {"spend": "drops"}),
    )
    yield made
    for shop in made:
        shop.stop()


def test_their_work_lies_under_names_of_their_own(pair: tuple[Shop, Shop]) -> None:
    first, second = (shop.project for shop in pair)
    assert first.name == second.name
    assert first.scope == pair[0].store.identity().id != second.scope
    requested(first.work_queue, "spend", "a came")
    assert second.work_queue.read(["spend"])[0].wanted == 0
    enqueue(first, "spend", "spend-1")
    assert JobQueue(second.redis, second.scope).waiting() == set()
    first.event_log.write("held", "spend")
    add_each(first.redis, first.event_log.drop_time("spend", 1.0))
    first.counts.add("spend", {"drops": 1})
    first.claim("mine")
    assert second.event_log.read("0") == []
    assert second.event_log.freshness("spend") is None
    assert second.counts.read("spend") == {}
    assert second.gone() == []
    first.make_current()
    assert second.is_current()


@pytest.mark.slow
def test_each_is_served_by_its_own_worker_and_sees_no_other(pair: tuple[Shop, Shop]) -> None:
    first, second = pair
    for shop in pair:
        shop.start("watch")
        shop.start("worker")
    for user, shop in enumerate(pair, 1):
        write(shop.folder / "drops/a.parquet", purchases((user, 0, 1.0)))
    eventually(lambda: first.online("spend", 1) and first.online("mine", 1), within=60)
    eventually(lambda: second.online("spend", 2), within=60)
    assert second.online("spend", 1) is None
    assert first.online("spend", 2) is None
    for shop in pair:
        assert len(JobQueue(shop.project.redis, shop.project.scope).workers()) == 1
        assert not any("other" in text for text in gather(shop.project).warnings)
        assert not shop.log("job of another project")
    assert not second.log("feature is gone")
    assert first.online("mine", 1)


def test_a_worker_that_rq_starts_listens_on_the_queue_of_its_project(
    pair: tuple[Shop, Shop],
) -> None:
    first = pair[0]
    first.run([*RQ_WORKER, "--url", first.url])
    queues = [JobQueue(shop.project.redis, shop.project.scope) for shop in pair]
    eventually(queues[0].workers, within=60)
    assert queues[1].workers() == []
    assert first.project.redis.smembers(f"rq:workers:{queue_of(first.project.scope)}")


def test_what_the_last_release_pushed_is_owned_by_the_store_that_has_it(
    pair: tuple[Shop, Shop],
) -> None:
    """It named owners by the project's name, which both have."""
    first, second = (shop.project for shop in pair)
    write(pair[0].folder / "drops/a.parquet", purchases((1, 0, 1.0)))
    first.definitions.refresh("mine")
    first.redis.hset("mlforge-work:owners", mapping={"mine": "shop", "else": "shop", "x": "other"})
    assert second.take_over() == set()
    assert first.take_over() == {"mine"}
    assert first.owned() == {"mine"}
    assert first.redis.hgetall("mlforge-work:owners") == {b"else": b"shop", b"x": b"other"}


@pytest.mark.slow
def test_jobs_and_tickets_of_the_last_release_do_no_harm(pair: tuple[Shop, Shop]) -> None:
    first = pair[0]
    client = first.project.redis
    client.hset("mlforge-work:shop:ticket:spend", mapping={"wanted": 5, "queued": "spend-old"})
    client.set("mlforge-work:shop:definitions", "of-the-last-release 99999999999999999")
    client.rpush("rq:queue:mlforge", "spend-old")
    first.start("watch")
    first.start("worker")
    write(first.folder / "drops/a.parquet", purchases((1, 0, 1.0)))
    eventually(lambda: first.online("spend", 1), within=60)


def test_a_store_that_is_moved_keeps_its_scope(pair: tuple[Shop, Shop], tmp_path: Path) -> None:
    first = pair[0]
    scope = first.project.scope
    moved = tmp_path / "elsewhere"
    first.folder.rename(moved)
    settings = first.project.settings
    assert Project.open(type(settings)(settings.redis_url, "definitions.py", moved)).scope == scope


@pytest.mark.slow
def test_a_store_that_is_made_anew_under_running_processes_is_served_under_its_own_name(
    pair: tuple[Shop, Shop],
) -> None:
    first = pair[0]
    before = first.project.scope
    first.start("watch")
    first.start("worker")
    write(first.folder / "drops/a.parquet", purchases((1, 0, 1.0)))
    eventually(lambda: first.online("spend", 1), within=60)
    # Away at once, whatever a worker writes meanwhile.
    shutil.rmtree((first.folder / "feature_store").rename(first.folder / "deleted"))
    write(first.folder / "drops/b.parquet", purchases((2, 0, 1.0)))

    def served() -> bool:
        identity = first.store.identity()
        if identity is None or identity.id == before:
            return False
        again = Project.open(first.project.settings)
        with suppress(OwnedElsewhere):  # the push that takes over is still to come
            row = again.online.read("spend", {"user_id": 2})
            return row is not None and again.presence.read() is not None
        return False

    eventually(served, within=90, every=0.5)

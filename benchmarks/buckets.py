"""Measure 16: what a drop costs whose store lies in a bucket, near and far, against a store on the disk."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.drops import Feed, drops_by_turns
from benchmarks.harness import (
    MILLISECONDS,
    MORE_MS,
    Bench,
    Measure,
    Row,
    Target,
    check,
    median_of,
    ratios,
)
from benchmarks.project import NAME, TTL_S, Project, Stores
from benchmarks.slow_proxy import slowed
from mlforge import Definitions
from mlforge.online import RedisStore
from mlforge.store import ObjectStore
from tests.support.object_servers import BUCKET, Server, seaweed

_FAR_S = 0.015


def _in_bucket(bench: Bench, server: Server, name: str) -> Feed:
    """A feed over the history whose store lies in a bucket of a server."""
    project = Project.over(bench, bench.history())
    online = RedisStore.from_url(bench.url, ttl=TTL_S, prefix=name)
    store = ObjectStore(f"s3://{BUCKET}/{name}", bench.new_folder(name), server.options)
    definitions = Definitions(store, [project.feature], online, bench.engine, root=project.folder)
    feed = Feed(project, Stores(definitions, name))
    feed.stores.build()
    feed.drop()
    feed.modes.clear()
    return feed


def _run(bench: Bench) -> list[Row]:
    with ExitStack() as servers:
        server = servers.enter_context(seaweed(bench.new_folder("seaweed")))
        port = servers.enter_context(slowed(int(server.endpoint.rpartition(":")[2]), _FAR_S))
        feeds = [
            Feed.over(Project.over(bench, bench.history())),
            _in_bucket(bench, server, "near"),
            _in_bucket(bench, Server(f"http://127.0.0.1:{port}"), "far"),
        ]
        disk, near, far = drops_by_turns(bench, feeds)
        modes = [feed.modes for feed in feeds]
        check(all(each == {"incremental"} for each in modes), f"drops were refreshed {modes}")
        tables = [feed.stores.definitions.store.read(NAME) for feed in feeds]
        check(all(table.equals(tables[0]) for table in tables), "the stores hold the same rows")
    what = f"drop of {bench.size.drop:,} events, store in a bucket: refresh + push"
    return [
        Row(
            "16",
            what,
            median_of(near, MILLISECONDS),
            f"store on the disk: {median_of(disk, MILLISECONDS)}",
            ratios(near, disk),
            Target(2.0),
        ),
        Row(
            "16",
            "the same, each request 15 ms longer",
            median_of(far, MILLISECONDS),
            f"without: {median_of(near, MILLISECONDS)}",
            [slow - quick for slow, quick in zip(far, near, strict=True)],
            Target(0.150, MORE_MS),
        ),
    ]


MEASURES = (
    Measure("16", "a drop whose store is a bucket, against one on the disk", "<= 2x", _run),
)

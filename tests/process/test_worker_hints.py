"""Hints of a bucket's changes from a queue: sooner than a listing, and of no consequence when late, doubled, swapped or lost."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from mlforge.errors import MlforgeError
from mlforge.sources.bucket_notices import objects_of
from mlforge.store.bucket_place import _bucket
from mlforge.store.lakehouse.source import LakeSource
from mlforge.store.object_source import ObjectSource
from mlforge.store.objects.bucket import Bucket
from tests.support.object_servers import BUCKET, Server, moto
from tests.support.workers import DEFINITIONS, eventually, purchases, running_shop
from worker.connection import connect
from worker.project import Settings
from worker.service.embedded_redis import EmbeddedServer
from worker.state.notices import Notices
from worker.watch import hints, polls
from worker.watch.file_tracker import FileTracker
from worker.watch.hints import Hints
from worker.watch.polls import Polls


def notice(key: str, bucket: str = "shop") -> dict[str, Any]:
    s3 = {"bucket": {"name": bucket}, "object": {"key": key, "size": 7}}
    return {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": s3}]}


@pytest.mark.parametrize(
    ("message", "addresses"),
    [
        (notice("drops/a.parquet"), ["s3://shop/drops/a.parquet"]),
        (
            notice("drops/date%3D2026-11-01/a+b%2B%C3%BC.parquet"),
            ["s3://shop/drops/date=2026-11-01/a b+ü.parquet"],
        ),
        ({"Type": "Notification", "Message": json.dumps(notice("a"))}, ["s3://shop/a"]),
        (
            {
                "source": "aws.s3",
                "detail": {"bucket": {"name": "shop"}, "object": {"key": "a+b%2B"}},
            },
            ["s3://shop/a+b%2B"],
        ),
        (
            {
                "message": {
                    "attributes": {
                        "bucketId": "shop",
                        "objectId": "a+b%2B",
                        "eventType": "OBJECT_FINALIZE",
                    }
                }
            },
            ["gs://shop/a+b%2B"],
        ),
        (
            [
                {"eventType": "Microsoft.Storage.BlobCreated", "subject": 7},
                {
                    "eventType": "Microsoft.Storage.BlobDeleted",
                    "subject": "/blobServices/default/containers/shop/blobs/drops/a b.parquet",
                },
            ],
            ["az://shop/drops/a b.parquet"],
        ),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "shop"}, []),
        ({"message": {"attributes": None}}, []),
        ({"Records": [{"s3": {}}]}, []),
        ({"source": "aws.s3", "detail": None}, []),
        ([1], []),
        ("text", []),
    ],
)
def test_a_message_names_objects_or_none(message, addresses):
    assert objects_of(json.dumps(message)) == addresses
    assert objects_of("{no json") == objects_of(b"\xff") == objects_of("[" * 100_000) == []


def test_an_address_that_is_no_queue_is_refused_and_the_setting_is_read():
    for wrong in ("drops", "sqs://drops", "https://sqs.eu-central-1.amazonaws.com"):
        with pytest.raises(MlforgeError, match=r"MLFORGE_HINTS=.* is no queue; give its URL"):
            Hints(wrong, lambda addresses: None)
    url = "https://sqs.eu-central-1.amazonaws.com/1234/drops"
    read = Settings.read({"REDIS_URL": "redis://localhost", "MLFORGE_HINTS": url})
    assert read.hints == url
    assert Hints(url, lambda addresses: None)._queue.meta.region_name == "eu-central-1"


def test_what_no_hint_names_is_listed_as_often_as_without_hints(tmp_path: Path) -> None:
    objects, lake = ObjectSource.of(["s3://shop/drops/"]), LakeSource.of(["delta:lake"], tmp_path)
    dim = ObjectSource.of(["s3://shop/dim.parquet"])
    sources = [objects, lake, *(replace(objects, tables=(("dim", t),)) for t in (dim, lake))]
    every = Polls([FileTracker(source, ("spend",)) for source in sources], "https://sqs/1/drops")
    assert every._hints is not None
    every._hints.are_heard = True
    seconds = [every._every(poll, 5.0) for poll in every._polls]
    assert seconds == [polls.HINTED_EVERY_S, 5.0, polls.HINTED_EVERY_S, 5.0]
    every.hint(["s3://shop/dim.parquet", "s3://shop/other", "no address"])
    assert [poll.is_hinted.is_set() for poll in every._polls] == [False, False, True, False]


@dataclass
class Shop:
    """A bucket that tells a queue of its changes, and a source in it that is listed once in an hour."""

    server: Server
    queue: str
    sqs: Any
    s3: Any
    tracker: FileTracker = field(init=False)
    polls: Polls = field(init=False)
    unsealed: list[tuple[str, str]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    def put(self, key: str) -> None:
        Bucket(f"s3://{BUCKET}", self.server.options).put(key, b"PAR1")

    def send(self, *messages: object) -> None:
        for message in messages:
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=json.dumps(message))

    def told(self) -> list[str]:
        self.changes += [str(change) for _, change in self.polls.taken()]
        return self.changes

    def notify(self, *, on: bool) -> None:
        """Have the bucket tell the queue of new objects, or nobody."""
        answer = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])
        to = {"QueueArn": answer["Attributes"]["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
        self.s3.put_bucket_notification_configuration(
            Bucket=BUCKET,
            NotificationConfiguration={"QueueConfigurations": [to] if on else []},
        )

    def left(self) -> int:
        counts = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        answer = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["All"])
        return sum(int(answer["Attributes"][count]) for count in counts)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    monkeypatch.setattr(polls, "HINTED_EVERY_S", 3600.0)
    monkeypatch.setattr(hints, "_WAIT_S", 1)
    with moto() as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
        _bucket.cache_clear()
        sqs = boto3.client("sqs", region_name=os.environ["AWS_REGION"])
        queue = sqs.create_queue(QueueName="drops", Attributes={"VisibilityTimeout": "1"})[
            "QueueUrl"
        ]
        s3 = boto3.client("s3", region_name=os.environ["AWS_REGION"])
        made = Shop(bucket, queue, sqs, s3)
        made.notify(on=True)
        source = ObjectSource.of([f"s3://{BUCKET}/drops/"], sealed_after=1_000)
        made.tracker = FileTracker(source, ("spend",))
        made.polls = Polls([made.tracker], queue, lambda *late: made.unsealed.append(late))
        yield made
        _bucket.cache_clear()


@pytest.mark.slow
def test_hints_have_a_source_listed_at_once_whatever_becomes_of_them(shop):
    shop.put("drops/date=2026-01-01/old.parquet")
    with shop.polls.running(3600.0):
        eventually(shop.told)
        eventually(lambda: shop.left() == 0)
        began = time.monotonic()
        shop.put("drops/a b+ü.parquet")
        eventually(lambda: "a b+ü.parquet came" in shop.told())
        assert time.monotonic() - began < 20  # of an hour
        eventually(lambda: shop.left() == 0)
        # doubled, out of order, of nothing, of others, no notice at all
        before = len(shop.told())
        shop.send(
            notice("drops/gone.parquet", BUCKET), notice("drops/a+b%2B%C3%BC.parquet", BUCKET)
        )
        shop.send(notice("drops/x.parquet", "other"), notice("elsewhere/x", BUCKET), "text", {})
        eventually(lambda: shop.left() == 0)
        assert len(shop.told()) == before
        # lost: a listing that another hint asks for shows what none was told of
        shop.notify(on=False)
        shop.put("drops/b.parquet")
        shop.put("drops/c.parquet")
        shop.send(notice("drops/c.parquet", BUCKET))
        eventually(lambda: {"b.parquet", "c.parquet"} <= shop.tracker.known.keys())


@pytest.mark.slow
def test_an_address_that_is_handed_on_has_its_source_listed_at_once(
    shop: Shop, redis_url: str
) -> None:
    """As of a notice over HTTP, without a queue."""
    shop.polls = Polls([shop.tracker])
    notices, stop = Notices(connect(redis_url), "project"), threading.Event()
    thread = threading.Thread(target=notices.run, args=(shop.polls.hint, stop))
    thread.start()
    try:
        with shop.polls.running(3600.0):
            eventually(shop.told)
            shop.put("drops/a b.parquet")
            notices.put([f"s3://{BUCKET}/drops/a b.parquet"])
            eventually(lambda: "a b.parquet came" in shop.told())
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
def test_a_hint_of_a_sealed_partition_is_told_and_unseals(shop):
    shop.put("drops/date=2026-01-01/old.parquet")
    with shop.polls.running(3600.0):
        eventually(shop.told)
        for name in ("x", "y", "z"):  # listed again, as it was: sealed
            shop.put(f"drops/{name}.parquet")
            eventually(lambda name=name: f"{name}.parquet" in shop.tracker.known and shop.told())
        eventually(lambda: shop.tracker.sealed_until)
        eventually(lambda: shop.left() == 0)
        late = "date=2026-01-01/late.parquet"
        shop.put(f"drops/{late}")
        eventually(lambda: f"{late} came" in shop.told())
        eventually(lambda: f"{late} came late" in shop.told())
        assert ("spend", late) in shop.unsealed


@pytest.mark.slow
def test_while_the_queue_cannot_be_asked_sources_are_listed_as_without_it(shop):
    with shop.polls.running(0.2):
        eventually(shop.told)
        eventually(lambda: shop.polls._hints.are_heard)
        shop.sqs.delete_queue(QueueUrl=shop.queue)
        eventually(lambda: not shop.polls._hints.are_heard)
        shop.put("drops/unheard.parquet")
        eventually(lambda: "unheard.parquet came" in shop.told())


@pytest.mark.slow
def test_an_object_that_a_queue_tells_of_is_online_long_before_the_next_listing(
    shop: Shop,
    server: EmbeddedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """Real processes: with a queue that is heard, sources are listed once a minute."""
    monkeypatch.setenv("MLFORGE_HINTS", shop.queue)
    definitions = DEFINITIONS.replace('source="slow/"', f'source="s3://{BUCKET}/incoming/"')
    bucket = Bucket(f"s3://{BUCKET}/incoming", shop.server.options)
    bucket.put("0.parquet", purchases((100, 0, 1.0)))
    with running_shop(server, tmp_path, definitions=definitions) as running:
        eventually(lambda: running.online("slow", 100))
        eventually(lambda: shop.left() == 0)
        latencies = []
        for number in range(5):
            began = time.monotonic()
            bucket.put(f"{number + 1} a+b.parquet", purchases((number, number, 1.0)))
            eventually(lambda number=number: running.online("slow", number))
            latencies.append(time.monotonic() - began)
        shop.notify(on=False)  # as from a bucket that tells the HTTP server
        began = time.monotonic()
        bucket.put("told.parquet", purchases((7, 7, 1.0)))
        project = running.project
        Notices(project.redis, project.scope).put([f"s3://{BUCKET}/incoming/told.parquet"])
        eventually(lambda: running.online("slow", 7))
        assert time.monotonic() - began < 20  # of a minute
    record_property("seconds from put to readable", sorted(round(each, 3) for each in latencies))
    assert sorted(latencies)[2] < 20

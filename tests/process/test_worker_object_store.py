"""Real processes over a store in a bucket: a file is dropped, a version appears there, its rows are online."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlforge.store import ObjectStore
from mlforge.store.objects.bucket import Bucket
from tests.support.object_servers import BUCKET, seaweed
from tests.support.workers import DEFINITIONS, Shop, eventually, purchases, running_shop, write
from worker.service.embedded_redis import EmbeddedServer

URL = f"s3://{BUCKET}/shop"
INCOMING = f"s3://{BUCKET}/incoming/"
IN_A_BUCKET = (
    DEFINITIONS.replace("import LocalStore", "import ObjectStore")
    .replace('LocalStore(HERE / "feature_store")', f'ObjectStore("{URL}", cache=HERE / "cache")')
    .replace('source="slow/"', f'source="{INCOMING}"')
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop whose store is in a bucket, with its watcher and one worker running."""
    with (
        seaweed(tmp_path_factory.mktemp("seaweed")) as bucket,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in bucket.environment.items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("shop")
        with running_shop(server, folder, definitions=IN_A_BUCKET) as made:
            yield made


def test_a_drop_becomes_a_version_in_the_bucket_and_rows_online(shop, tmp_path):
    for number, total in ((1, 2.0), (2, 5.0)):
        file = write(
            shop.folder / "drops" / f"{number}.parquet",
            purchases(
                (1, number, 1.0 + number),
            ),
        )
        waited = shop.ask_apart("wait", str(file), "--timeout", "60")
        assert waited.returncode == 0, waited.stderr
        assert shop.online("spend", 1) == {
            "amount__sum__7d": total,
            "amount__count__7d": number,
        }
    elsewhere = ObjectStore(URL, tmp_path / "cache")
    assert elsewhere.list_versions("spend") == ["1.0.0", "1.0.1"]
    assert elsewhere.read("spend").height == 2


def test_an_object_that_is_put_into_a_source_is_online_and_can_be_waited_for(shop):
    bucket = Bucket(INCOMING)
    for number in (1, 2):
        bucket.put(f"{number}.parquet", purchases((number, number, float(number))))
        if number == 2:
            waited = shop.ask("wait", f"{INCOMING}2.parquet", "--timeout", "60")
            assert waited.returncode == 0, waited.stderr
        row = eventually(lambda number=number: shop.online("slow", number))
        assert row == {"amount": number}
    elsewhere = shop.ask("wait", f"s3://{BUCKET}/elsewhere/2.parquet")
    assert elsewhere.returncode == 1
    assert INCOMING in elsewhere.stderr


def test_commands_work_on_the_bucket(shop, tmp_path):
    for command in (
        ("verify",),
        ("versions", "spend", "--store", URL),
        ("explain", "spend", "user_id=1"),
        ("plan",),
        ("status",),
        ("rollback", "spend"),
        ("approve", "spend"),
    ):
        told = shop.ask_apart(*command)
        assert told.returncode == 0, (command, told.stdout, told.stderr)

"""Real processes whose rows go to a Redis Cluster, and whose queue is a server of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlforge.errors import OnlineRefused
from tests.support.clusters import Cluster
from tests.support.workers import (  # noqa: F401 - fixtures
    DEFINITIONS,
    Shop,
    eventually,
    purchases,
    running_shop,
    server,
    write,
)
from worker.connection import connect
from worker.service.embedded_redis import EmbeddedServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(
    server: EmbeddedServer,  # noqa: F811
    cluster_server: Cluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    """A shop with its watcher and one worker running, whose definitions name a cluster by its URL."""
    cluster_server.flush()
    placed = DEFINITIONS.replace('name="shop"', f'online_store="{cluster_server.url}", name="shop"')
    assert cluster_server.url in placed
    with running_shop(server, tmp_path_factory.mktemp("shop"), definitions=placed) as made:
        yield made


def test_a_drop_becomes_rows_on_the_cluster(shop, cluster_server, tmp_path):
    for number, total in ((1, 2.0), (2, 5.0)):
        file = write(
            shop.folder / "drops" / f"{number}.parquet", purchases((1, number, 1.0 + number))
        )
        waited = shop.ask_apart("wait", str(file), "--timeout", "60")
        assert waited.returncode == 0, waited.stderr
        assert shop.online("spend", 1) == {
            "amount__sum__7d": total,
            "amount__count__7d": number,
        }
    assert any(key.startswith("mlforge:{spend:") for key in cluster_server.all_keys())


def test_commands_read_and_push_there(shop, cluster_server):
    eventually(lambda: shop.online("spend", 1))
    cluster_server.flush()
    pushed = shop.ask_apart("build", "--features", "spend", "--online")
    assert pushed.returncode == 0, pushed.stderr
    assert shop.online("spend", 1)["amount__count__7d"] >= 1


def test_a_cluster_as_the_queue_s_server_is_refused_in_words(cluster_server: Cluster) -> None:
    for url in (cluster_server.url, f"redis://127.0.0.1:{cluster_server.ports[0]}/0"):
        with pytest.raises(
            OnlineRefused, match="is a cluster, and the queue of the workers needs a server"
        ):
            connect(url)

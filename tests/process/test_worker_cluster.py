"""Real processes whose rows go to a Redis Cluster, and whose queue is a server of its own."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mlforge.errors import OnlineRefused
from tests.process.test_worker_up import Terminal, folder, terminal  # noqa: F401 - fixtures
from tests.support.certificates import Authority
from tests.support.clusters import Cluster, cluster
from tests.support.tls_proxy import tls_before
from tests.support.workers import DEFINITIONS, Shop, eventually, purchases, running_shop, write
from worker.connection import connect
from worker.service.embedded_redis import EmbeddedServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(
    server: EmbeddedServer,
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


@pytest.fixture
def secure_url(tmp_path: Path) -> Iterator[str]:
    """The address of a cluster that is reached over TLS alone, as each node announces."""
    authority = Authority(tmp_path, "authority")
    pair = authority.issue("127.0.0.1")
    with ExitStack() as running:
        nodes = running.enter_context(cluster())
        ports = [
            running.enter_context(tls_before(port, pair.certificate, pair.key))
            for port in nodes.ports
        ]
        for number, port in enumerate(ports):
            nodes.ask(number, "CONFIG", "SET", "cluster-announce-port", port)
        for number in range(len(ports)):
            eventually(
                lambda n=number: (
                    {slots[2][1] for slots in nodes.ask(n, "CLUSTER", "SLOTS")} == set(ports)
                )
            )
        yield f"rediss://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}?cluster=true&ssl_ca_certs={authority.file}"


def test_up_pushes_to_a_cluster_over_tls_and_answers_over_http(
    terminal: Callable[..., Terminal],  # noqa: F811
    folder: Path,  # noqa: F811
    secure_url: str,
) -> None:
    placed = DEFINITIONS.replace('name="shop"', f'online_store="{secure_url}", name="shop"')
    (folder / "definitions.py").write_text(placed)
    up = terminal("--port", "0")
    url = up.sees(r"server: serving .* at (http://127.0.0.1:\d+);")[1]
    write(folder / "drops" / "a.parquet", purchases((1, 0, 2.0), (2, 0, 3.0)))
    up.sees(r"spend +1\.0\.0 .* pushed")
    question = {"features": ["spend"], "entities": [{"user_id": user} for user in (1, 2)]}
    asked = urllib.request.Request(
        f"{url}/v1/features",
        json.dumps(question).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        rows = json.load(answer)["features"]["spend"]
    assert [row["amount__sum__7d"] for row in rows] == [2.0, 3.0]
    assert up.end() == 0
    assert up.family() == []


def test_a_cluster_as_the_queue_s_server_is_refused_in_words(cluster_server: Cluster) -> None:
    for url in (cluster_server.url, f"redis://127.0.0.1:{cluster_server.ports[0]}/0"):
        with pytest.raises(
            OnlineRefused, match="is a cluster, and the queue of the workers needs a server"
        ):
            connect(url)

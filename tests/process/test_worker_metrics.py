"""Metrics and health, asked for over HTTP as Prometheus does, of a real watcher beside a real worker."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlforge.serve.page.needs import needs_of
from tests.support.workers import Shop, eventually, purchases, running_shop, write
from worker.monitor.metrics import Exporter, Health
from worker.monitor.status import gather
from worker.service.embedded_redis import EmbeddedServer
from worker.state.drop_steps import STEPS

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def shop(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop whose watcher serves metrics at a free port."""
    commands = (["watch", "--metrics-port", "0"], ["worker"])
    with running_shop(server, tmp_path_factory.mktemp("shop"), commands) as made:
        yield made


@pytest.fixture(scope="module")
def address(shop: Shop) -> str:
    """Where the watcher says that it serves metrics."""

    def told() -> re.Match[str] | None:
        log = (shop.folder / "output.log").read_text()
        return re.search(r'"host": "127\.0\.0\.1", "port": (\d+)', log)

    return f"http://127.0.0.1:{eventually(told, within=60)[1]}"


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def scrape(address: str) -> Samples:
    code, text = get(f"{address}/metrics")
    assert code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"mlforge_{name}", tuple(sorted(labels.items()))), -1.0)


def test_what_forked_jobs_did_is_counted(shop: Shop, address: str) -> None:
    eventually(lambda: get(f"{address}/readyz")[0] == 200, within=60)
    for number in range(2):
        write(
            shop.folder / f"drops/{number}.parquet", purchases((1, number, 2.0), (2, number, 1.0))
        )
        eventually(lambda n=number: of(scrape(address), "rows", feature="spend") == 2 * n + 2)
    (shop.folder / "drops/bad.parquet").write_bytes(b"PAR1 this is none PAR1")
    eventually(lambda: of(scrape(address), "quarantined_files", feature="spend") == 1)
    write(shop.folder / "poison/0.parquet", purchases((1, 1, 1.0)))
    eventually(
        lambda: of(scrape(address), "refreshes_total", feature="poison", result="failed") >= 1
    )

    def are_all_done(now: Samples) -> bool:
        """Whether no job waits any more, and the watcher, which asks first and then counts, has counted each drop."""
        return of(now, "queue_depth") == 0 and of(now, "drops_total", feature="spend") >= 3

    found = eventually(lambda: are_all_done(now := scrape(address)) and now, within=60)
    assert of(found, "refreshes_total", feature="spend", result="refreshed") >= 2
    assert of(found, "rows_recomputed_total", feature="spend") >= 4
    assert of(found, "pushes_total", feature="spend") >= 2
    assert of(found, "entities_pushed_total", feature="spend") >= 4
    assert of(found, "freshness_seconds_count", feature="spend") >= 1
    whole = of(found, "freshness_seconds_sum", feature="spend")
    assert 0 < whole < 60
    steps = [of(found, "freshness_steps_seconds_sum", feature="spend", step=step) for step in STEPS]
    assert sum(steps) == pytest.approx(whole, abs=0.01)
    assert of(found, "freshness_steps_seconds_count", feature="spend", step="push") >= 1
    assert of(found, "freshness_seconds_bucket", feature="spend", le="+Inf") == of(
        found, "freshness_seconds_count", feature="spend"
    )
    assert of(found, "online_rows", feature="spend") == 2
    assert of(found, "lag_seconds", feature="spend") == 0
    assert of(found, "workers") == 1
    assert of(found, "up") == 1
    assert of(found, "needs_attention", feature="spend", state="quarantined") == 1
    assert of(found, "needs_attention", feature="spend", state="unreadable") == 0


def test_what_an_audit_found_is_told(shop: Shop, address: str) -> None:
    eventually(lambda: shop.store.latest("spend"))
    before = scrape(address)
    assert ("mlforge_audit_mismatches", (("feature", "spend"),)) not in before
    assert shop.ask("audit", "spend").returncode == 0
    found = scrape(address)
    assert of(found, "audit_mismatches", feature="spend") == 0
    assert of(found, "audit_values", feature="spend") > 0
    assert of(found, "proven_timestamp_seconds", feature="spend") > 1.7e9


def test_health_is_that_of_the_process_and_readiness_that_of_all_it_needs(
    shop: Shop, address: str
) -> None:
    eventually(lambda: get(f"{address}/readyz")[0] == 200, within=60)
    assert get(f"{address}/healthz") == (200, "alive\n")
    assert json.loads(get(f"{address}/readyz")[1]) == dict.fromkeys(
        ("redis", "definitions", "store", "scan", "watch", "reconcile"), "ok"
    )
    assert get(f"{address}/etc/passwd")[0] == 404


@pytest.mark.slow
def test_without_a_server_the_process_is_alive_and_not_ready(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("alone")
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as own:
        shop = Shop(folder, own.url)
        health = Health(shop.project)
        exporter = Exporter(health, 0)
        exporter.start()
        address = f"http://127.0.0.1:{exporter.port}"
        checks = json.loads(get(f"{address}/readyz")[1])
        assert checks["redis"] == "ok"
        assert checks["scan"] == "the sources have not been looked at yet"
    try:
        assert get(f"{address}/healthz")[0] == 200
        code, text = get(f"{address}/readyz")
        assert code == 503
        assert json.loads(text)["redis"] != "ok"
        assert of(scrape(address), "up") == 0
    finally:
        exporter.stop()


@pytest.mark.slow
def test_the_metrics_are_for_this_machine_alone_unless_told_otherwise(address: str) -> None:
    assert address.startswith("http://127.0.0.1:")


@pytest.mark.slow
def test_an_edit_that_does_not_import_is_told_until_it_is_mended(shop: Shop, address: str) -> None:
    file, project = shop.folder / "definitions.py", shop.project
    good = file.read_text()
    # A worker that starts amid the edit would end.
    eventually(lambda: of(scrape(address), "workers") == 1)
    assert of(scrape(address), "definitions_broken") == 0
    file.write_text(f"{good}\nthis is not python\n")
    eventually(lambda: of(scrape(address), "definitions_broken") == 1)
    status = gather(project).to_json()
    problem = status["watcher"]["definitions_problem"]
    assert "do not import, the old ones stay in use" in problem
    assert "definitions.py" in problem
    assert problem in status["warnings"]
    assert any("do not import" in need.sentence for need in needs_of(status)), "on the page, too"
    file.write_text(good)
    eventually(lambda: of(scrape(address), "definitions_broken") == 0)
    assert problem not in gather(project).warnings


@pytest.mark.slow
def test_metrics_are_there_again_after_definitions_were_taken_up(shop: Shop, address: str) -> None:
    """The watcher starts itself anew for an edit, in the same process."""
    log, file = shop.folder / "output.log", shop.folder / "definitions.py"
    refreshed = {"feature": "spend", "result": "refreshed"}
    write(shop.folder / "drops/before.parquet", purchases((1, 9, 1.0)))
    eventually(lambda: of(scrape(address), "refreshes_total", **refreshed) >= 1)
    before = log.read_text().count('"event": "metrics"')
    file.write_text(file.read_text().replace('"7d"', '"8d"'))
    eventually(lambda: log.read_text().count('"event": "metrics"') > before, within=60)
    port = re.findall(r'"host": "127\.0\.0\.1", "port": (\d+)', log.read_text())[-1]
    eventually(lambda: get(f"http://127.0.0.1:{port}/readyz")[0] == 200, within=60)
    found = scrape(f"http://127.0.0.1:{port}")
    assert of(found, "refreshes_total", **refreshed) >= 1, "counts go on"

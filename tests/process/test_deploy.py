"""What deploy/ holds: run where it can be run here, else read and held against what it promises.

The Procfile runs, with real processes; systemd's own checker reads the units where there is one. No Docker
engine is at hand: compose.yaml and the Dockerfile are read, and the Dockerfile's own commands are run in an
ordinary folder by .ci/run, but no image is built. Nor is there a Prometheus: of the rules, names are checked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.workers import Shop, eventually, purchases, running_shop, write
from worker.monitor.metrics import Collector
from worker.service.embedded_redis import EmbeddedServer

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())


@pytest.fixture
def shop(server: EmbeddedServer, tmp_path: Path) -> Iterator[Shop]:
    with running_shop(server, tmp_path, ()) as made:
        yield made


def test_the_procfile_is_one() -> None:
    assert (DEPLOY / "Procfile").resolve() == ROOT / "Procfile"


@pytest.mark.slow
def test_the_procfile_serves_a_drop_through_honcho(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_ = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(bin_), prepend=":")
    honcho = [str(bin_ / "honcho"), "--procfile", str(ROOT / "Procfile"), "--app-root"]
    shop.run([*honcho, str(shop.folder), "start"])
    write(shop.folder / "drops/a.parquet", purchases((1, 0, 2.0)))
    row = eventually(lambda: shop.online("spend", 1), within=60)
    assert row["amount__sum__7d"] == 2.0


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, with the mlforge of this environment in place of /opt's."""
    found = []
    for unit in UNITS:
        text = unit.read_text().replace("/opt/mlforge/bin/", f"{Path(sys.executable).parent}/")
        copied = tmp_path / unit.name
        copied.write_text(text)
        found.append(copied)
    return found


systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd's checker is not installed"
)


@systemd
def test_systemd_understands_the_units(units: list[Path]) -> None:
    names = [str(u).replace("@.service", "@1.service") for u in units]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names],
        capture_output=True,
        text=True,
        check=False,
        cwd=units[0].parent,
    )
    own = [line for line in done.stderr.splitlines() if "mlforge" in line]
    assert (done.returncode, own) == (0, []), done.stderr


@systemd
@pytest.mark.parametrize(
    "name", ["mlforge-watcher.service", "mlforge-worker@.service", "mlforge-serve.service"]
)
def test_systemd_finds_little_that_a_service_may_do(name: str, units: list[Path]) -> None:
    [unit] = [unit for unit in units if unit.name == name]
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-600:] + done.stderr


def test_a_service_is_started_again_however_often_it_has_ended() -> None:
    for unit in UNITS:
        if unit.suffix == ".service":
            text = unit.read_text()
            assert "\nRestart=always\n" in text
            assert "\nOOMPolicy=continue\n" in text, "systemd ends a unit for the memory of one job"
            assert "\nStartLimitIntervalSec=0\n" in text, (
                "systemd gives up after five starts in 10 s"
            )


def test_no_unit_carries_a_password() -> None:
    for unit in UNITS:
        assert "://" not in unit.read_text()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(found, dict)
    return found


def test_each_service_of_compose_has_the_least_of_rights(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"queue", "features", "watcher", "worker", "serve"}
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"].split(":")[0] not in ("", "0", "root")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_path_of_a_proxy_reaches_the_server_of_compose(compose: dict[str, Any]) -> None:
    serve, worker = (compose["services"][name]["environment"] for name in ("serve", "worker"))
    assert serve == {**worker, "MLFORGE_ROOT_PATH": "${MLFORGE_ROOT_PATH:-}"}


def test_compose_names_only_what_it_defines(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service["secrets"]) <= set(compose["secrets"])
        assert set(service["networks"]) <= set(compose["networks"])
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source.startswith("./") or source in compose["volumes"]


def test_queue_and_features_are_two_servers_that_evict_as_they_may(compose: dict[str, Any]) -> None:
    for name, policy in (("queue", "noeviction"), ("features", "volatile-ttl")):
        command = compose["services"][name]["command"]
        assert command[command.index("--maxmemory-policy") + 1] == policy
        assert command[command.index("--appendonly") + 1] == "yes"
        assert "requirepass" not in " ".join(command), "a password in a command line is public"


def test_docker_compose_understands_the_file() -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("docker compose is not installed")
    done = subprocess.run(
        [docker, "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_image_is_built_in_two_stages_and_runs_as_nobody() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(stages) == 2
    assert all(stage.endswith("-slim") for stage in stages)
    last = text[text.rindex("FROM ") :]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE)
    assert "RUN" not in last, "nothing is installed in the image that runs"
    [user] = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert f"COPY --from=build --chown={user} /project /project\n" in last, "the store's volume"
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for path in copied.split():
            assert (ROOT / path).exists()
            assert f"!{path}\n" in (ROOT / ".dockerignore").read_text()


def test_alerts_ask_for_metrics_that_there_are(shop: Shop) -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"][0][
        "rules"
    ]
    families = list(Collector(shop.project).collect())
    known = {family.name for family in families}
    known |= {f"{family.name}_bucket" for family in families if family.type == "histogram"}
    known |= {f"{family.name}_total" for family in families if family.type == "counter"}
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    assert (DEPLOY / "prometheus" / scraped["rule_files"][0]).exists()
    jobs = {job["job_name"] for job in scraped["scrape_configs"]}
    for rule in rules:
        assert set(re.findall(r'job="([^"]+)"', rule["expr"])) <= jobs, rule["alert"]
        assert set(re.findall(r"mlforge_\w+", rule["expr"])) <= known, rule["alert"]
        assert rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in (ROOT / "docs" / "operations.md").read_text()

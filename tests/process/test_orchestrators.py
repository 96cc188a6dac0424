"""Airflow and Dagster for real, each in an environment of its own, with the examples of the documentation.

They need hundreds of megabytes, so .ci/run makes their environments: MLFORGE_AIRFLOW and MLFORGE_DAGSTER name the pythons.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.paths import ROOT
from tests.support.projects import at, rows
from tests.support.workers import eventually

PAGE = ROOT / "docs" / "orchestrators.md"
DEFINITIONS = """
import mlforge.validators as v
from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore


@feature(
    keys=["user_id"],
    source="drops/",
    timestamp="at",
    metrics=[Rolling("7d", {"amount": ["count", "sum"]})],
    validators={"amount": [v.in_range(0, 10_000), v.not_null()]},
)
def spend(df):
    return df


@feature(keys=["user_id"], source=spend, timestamp="at", metrics=[Rolling("2d", {"amount__sum__7d": "max"})])
def peak(df):
    return df


@feature(keys=["user_id"], source="nothing/", timestamp="at", metrics=[Rolling("7d", {"amount": "sum"})])
def absent(df):
    return df


defs = Definitions(LocalStore("feature_store"), [peak, absent, spend], services=[Service("checkout", [spend])])
"""


def example(title: str, project: Path) -> str:
    """A block of the page, with this project in place of the page's."""
    [code] = re.findall(rf'```python title="{title}"\n(.*?)```', PAGE.read_text(), re.DOTALL)
    return code.replace("/srv/shop", str(project))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with a file, and an empty folder beside it to run in."""
    project = tmp_path / "shop"
    (project / "drops").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (project / "definitions.py").write_text(DEFINITIONS)
    rows((1, 0, 1.0), (1, 3, 2.0), (2, 1.5, 5.0)).write_parquet(project / "drops/a.parquet")
    spine = pl.DataFrame({"user_id": [1, 2], "at": [at(4), at(4)], "label": [True, False]})
    spine.write_parquet(project / "spine.parquet")
    return project


def environment(name: str) -> Path:
    python = os.environ.get(name)
    if not python:
        pytest.skip(f"{name} names no python of an environment with it; .ci/run makes one")
    return Path(python)


class Tool:
    """A command of an orchestrator's environment, run in a folder that is not the project's."""

    def __init__(self, python: Path, shop: Path, **settings: str) -> None:
        self.bin, self.here = python.parent, shop.parent / "elsewhere"
        path = f"{self.bin}:{os.environ['PATH']}"
        self.settings = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **settings}

    def start(self, *command: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            return subprocess.Popen(
                [str(self.bin / command[0]), *command[1:]],
                cwd=self.here,
                env=self.settings,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def run(self, *command: str) -> str:
        log = self.here.parent / "run.log"
        code = self.start(*command, log=log).wait(240)
        assert code == 0, log.read_text()[-4_000:]
        return log.read_text()

    def python(self, code: str) -> Any:
        """The JSON that a script prints last."""
        return json.loads(self.run("python", "-c", code).splitlines()[-1])


@pytest.fixture
def airflow(shop: Path) -> Iterator[Tool]:
    home, extra = shop.parent / "airflow", {"definitions": str(shop / "definitions.py")}
    (home / "dags").mkdir(parents=True)
    (home / "dags/shop.py").write_text(example("dags/shop.py", shop))
    tool = Tool(
        environment("MLFORGE_AIRFLOW"),
        shop,
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW_CONN_SHOP=json.dumps({"conn_type": "mlforge", "extra": extra}),
    )
    tool.run("airflow", "db", "migrate")
    yield tool
    assert [*tool.here.iterdir()] == []  # a relative store is the project's


@pytest.mark.slow
def test_the_dag_of_the_page_checks_builds_waits_and_makes_a_training_set(
    airflow: Tool, shop: Path
) -> None:
    added = airflow.run("airflow", "connections", "add", "typed", "--conn-type", "mlforge")
    assert "invalid" not in added, added
    early = rows((1, -9, 1.0))  # before the instant that the sensor waits for
    early.write_parquet(shop / "drops/a.parquet")
    log = shop.parent / "dag.log"
    run = airflow.start("airflow", "dags", "test", "shop", log=log)
    try:
        deferred: Callable[[], bool] = lambda: "DEFERRED" in log.read_text()  # noqa: E731
        eventually(lambda: deferred() or run.poll() is not None, within=200)
        assert deferred(), log.read_text()[-4_000:]
        rows((1, 4, 2.0), (2, 4, 3.0)).write_parquet(shop / "drops/b.parquet")
        airflow.run("mlforge", "build", "--definitions", str(shop))  # as a watcher would
        assert run.wait(200) == 0, log.read_text()[-4_000:]
    finally:
        run.kill()
    [made] = (shop / "train").iterdir()
    assert pl.read_parquet(made / "part-00000.parquet")["spend__amount__sum__7d"].to_list() == [
        2,
        3,
    ]
    told = airflow.python(
        "import json\n"
        "from airflow.models.asset import AssetEvent, AssetModel\n"
        "from airflow.utils.session import create_session\n"
        "from sqlalchemy import select\n"
        "with create_session() as session:\n"
        "    [event] = session.scalars(select(AssetEvent)).all()\n"
        "    print(json.dumps([session.scalar(select(AssetModel.uri)), event.extra]))"
    )
    assert told == ["mlforge://shop/spend", {"version": "1.0.0", "rows": 1, "changed": True}]


@pytest.mark.slow
def test_dagster_materialises_each_feature_checks_validators_and_hears_of_a_watchers_versions(
    shop: Path,
) -> None:
    home, file = shop.parent / "dagster", shop.parent / "orchestration.py"
    home.mkdir()
    file.write_text(example("orchestration.py", shop))
    dagster = Tool(environment("MLFORGE_DAGSTER"), shop, DAGSTER_HOME=str(home))
    rows((3, 1, 50_000.0)).write_parquet(shop / "drops/bad.parquet")
    dagster.run("dagster", "asset", "materialize", "--select", "*", "-f", str(file))
    script = (
        "import dagster as dg, json, runpy, warnings\n"
        "warnings.simplefilter('ignore')\n"
        f"defs = runpy.run_path({str(file)!r})['defs']\n"
        "instance = dg.DagsterInstance.get()\n"
        "def version(name):\n"
        "    event = instance.get_latest_materialization_event(dg.AssetKey(['shop', name]))\n"
        "    return event and event.asset_materialization.tags['dagster/data_version']\n"
        "kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION\n"
        "records = instance.get_event_records(dg.EventRecordsFilter(kind))\n"
        "checks = [r.event_log_entry.dagster_event.asset_check_evaluation_data for r in records]\n"
        "sensor = defs.resolve_sensor_def('shop_versions')\n"
        'seen = sensor(dg.build_sensor_context(instance, cursor=\'{"spend": "1.0.0"}\'))\n'
        "print(json.dumps({\n"
        "    'versions': {name: version(name) for name in ('spend', 'peak', 'absent')},\n"
        "    'checks': {c.check_name: c.passed for c in checks},\n"
        "    'above': sorted(k.to_user_string() for k in defs.resolve_asset_graph().get(dg.AssetKey(['shop', 'spend'])).parent_keys),\n"
        "    'heard': {e.asset_key.path[-1]: e.tags['dagster/data_version'] for e in seen.asset_events},\n"
        "}))"
    )
    assert dagster.python(script) == {
        "versions": {"spend": "1.0.0", "peak": "1.0.0", "absent": None},
        "checks": {"amount_in_range_0_10000": False, "amount_not_null": True},
        "above": ["sources/drops"],
        "heard": {"peak": "1.0.0"},
    }
    (shop / "drops/bad.parquet").unlink()
    rows((1, 4, 2.0)).write_parquet(shop / "drops/b.parquet")
    dagster.run("mlforge", "build", "--definitions", str(shop))  # as a watcher would
    assert dagster.python(script)["heard"] == {"spend": "1.0.1", "peak": "1.0.1"}
    assert [*dagster.here.iterdir()] == []  # a relative store is the project's

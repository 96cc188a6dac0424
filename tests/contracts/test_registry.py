"""The registry's commands over a project: screens at two widths, JSON, lineage as Mermaid and OpenLineage."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import types
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import attr
import polars as pl
import pytest
from openlineage.client import event_v2, generated
from redis import Redis

from mlforge.cli import main
from mlforge.definitions.loader import load
from mlforge.registry.openlineage import named_place
from mlforge.training_sets.making import training_set
from tests.support.commands import as_json, printed
from worker.project import scope_of
from worker.state.event_log import EventLog
from worker.state.figures import add_each

DEFINITIONS = """
import polars as pl
from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

@feature(
    keys=["user_id"],
    source="events/",
    timestamp="event_time",
    metrics=[Rolling("7d", {"amount": ["sum", "count"]}, where="big"), Rolling("30d", {"amount": "sum"}, offset="1d")],
    derive={"ratio": "amount__sum__7d__big / amount__sum__30d__offset_1d"},
    tables={"rates": "rates.parquet"},
    tags=["money"],
    owner="risk",
    columns={"amount__sum__7d__big": "spent in a week on big things", "user_id": "the customer"},
)
def user_spend(df, rates):
    "What a customer spends."
    return df.select("user_id", "event_time", "amount", big=pl.col("amount") > 1)

@feature(keys=["user_id"], source=user_spend, timestamp="event_time", metrics=[Rolling("30d", {"ratio": "max"})])
def user_peaks(df):
    return df

@feature(keys=["user_id"], source="users.parquet", columns={"city": "home", "town": "gone"})
def user_profile(df):
    return df

checkout = Service(
    "checkout",
    features=[user_spend["amount__sum__7d__big"], user_profile.as_("buyer", user_id="buyer_id")],
    request={"price": pl.Float64},
    derive={"share": "price / user_spend__amount__sum__7d__big"},
    defaults={"amount__sum__7d__big": 0},
    max_age="6h",
    owner="payments",
    description="A checkout.",
)
defs = Definitions(
    store=LocalStore("feature_store"),
    features=[user_spend, user_peaks, user_profile],
    services=[checkout],
    name="shop",
)
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFORGE_DEFINITIONS", "REDIS_URL", "REDIS_URL_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("definitions.py").write_text(DEFINITIONS)
    Path("events").mkdir()
    times = [datetime(2025, 1, day, tzinfo=UTC) for day in (1, 2)]
    frame = {"user_id": [1, 2], "event_time": times, "amount": [1.5, 0.5]}
    pl.DataFrame(frame).write_parquet("events/a.parquet")
    pl.DataFrame({"user_id": [1], "city": ["Ulm"]}).write_parquet("users.parquet")
    pl.DataFrame({"rate": [1.0]}).write_parquet("rates.parquet")


def build(capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "build")


def train() -> str:
    definitions = load(None, here=Path.cwd())
    spine = pl.DataFrame({"user_id": [1], "event_time": [datetime(2025, 1, 3, tzinfo=UTC)]})
    made = training_set(spine, ["user_spend"], definitions.store, "train/one")
    return made.document.id


def test_a_feature_is_shown_with_columns_users_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    before = as_json(capsys, "show", "user_spend")
    assert (before["version"], before["cost"], before["versions"]) == (None, None, [])
    assert {"name": "ratio", "dtype": None}.items() <= before["columns"][-1].items()
    build(capsys)
    set_id = train()
    printed(capsys, "lock", "checkout", "--model", "fraud_v3")
    document = as_json(capsys, "show", "user_spend")
    assert (document["kind"], document["owner"], document["version"]) == (
        "feature",
        "risk",
        "1.0.0",
    )
    assert (document["sources"], document["tables"]) == (["events/"], {"rates": ["rates.parquet"]})
    columns = {column["name"]: column for column in document["columns"]}
    assert columns["amount__sum__7d__big"] == {
        "name": "amount__sum__7d__big",
        "dtype": "Float64",
        "aggregation": "sum",
        "window": "7d",
        "offset": None,
        "where": "big",
        "of": "amount",
        "description": "spent in a week on big things",
        "feature": None,
        "default": None,
    }
    assert columns["amount__sum__30d__offset_1d"]["offset"] == "1d"
    assert columns["ratio"]["of"].startswith("amount__sum__7d__big /")
    used_by = document["used_by"]
    assert (used_by["features"], used_by["services"]) == (["user_peaks"], ["checkout"])
    assert used_by["models"] == ["fraud_v3"]
    assert "model fraud_v3" in printed(capsys, "show", "user_profile")
    [held] = used_by["training_sets"]
    assert (held["id"], held["versions"]) == (set_id, ["1.0.0"])
    assert document["upstream"] == ["source:events/", "source:rates.parquet"]
    assert document["downstream"][:2] == ["feature:user_peaks", "service:checkout"]
    cost = document["cost"]
    store = load(None, here=Path.cwd()).store
    [table] = store.files("user_spend", store.versions("user_spend")[0])
    assert (cost["table_rows"], cost["event_rows"]) == (2, 2)
    assert cost["table_bytes"] == Path(table).stat().st_size
    assert cost["event_bytes"] > 0
    assert document["freshness_ms"] is None


def test_a_worker_s_figures_say_how_long_drops_take_as_far_as_its_server_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    build(capsys)
    with Redis.from_url(redis_url) as client:
        event_log = EventLog(client, scope_of(load(None, here=Path.cwd())))
        add_each(client, *(event_log.drop_time("user_spend", ms) for ms in (80.0, 120.0)))
    monkeypatch.setenv("REDIS_URL", redis_url)
    figures = {"count": 2, "p50": 80.0, "p95": 120.0, "p99": 120.0}
    assert as_json(capsys, "show", "user_spend")["freshness_ms"] == figures
    assert "readable online after 80 ms (p50)" in printed(capsys, "show", "user_spend")
    assert as_json(capsys, "show", "user_peaks")["freshness_ms"] is None
    monkeypatch.setenv("REDIS_URL", "redis://localhost:1/0")
    assert as_json(capsys, "show", "user_spend")["freshness_ms"] is None


@pytest.mark.parametrize("width", ["80", "60"])
def test_screens_keep_to_the_width_and_say_what_matters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    build(capsys)
    train()
    monkeypatch.setenv("COLUMNS", width)

    def screen(*arguments: str) -> str:
        text = printed(capsys, *arguments)
        assert max(map(len, text.splitlines())) <= int(width)
        return " ".join(text.split())

    feature = screen("show", "user_spend")
    assert "used by feature user_peaks; service checkout; training set train/one (1.0.0)" in feature
    assert "sum of amount where big over 7d: spent in a week on big things" in feature
    assert "columns are described that 1.0.0 does not have: town" in screen("show", "user_profile")
    service = screen("show", "checkout")
    assert "defaults amount__sum__7d__big = 0" in service
    assert "buyer__city String user_profile.city: home" in service or width == "60"
    assert "spent in a week" in screen("search", "WEEK")
    assert "(nobody) user_peaks, user_profile" in screen("owners") or width == "60"
    lineage = screen("lineage")
    assert "events/ (source) user_spend (1.0.0) user_peaks (1.0.0) checkout (service)" in lineage


def test_a_service_is_shown_with_types_once_its_features_are_built(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = as_json(capsys, "show", "checkout")
    assert [column["name"] for column in before["columns"]] == [
        "user_spend__amount__sum__7d__big",
        "share",
    ]
    assert not before["complete"]
    printed(capsys, "build", "--features", "user_profile")
    partly = {
        column["name"]: column["dtype"] for column in as_json(capsys, "show", "checkout")["columns"]
    }
    assert (partly["buyer__city"], partly["user_spend__amount__sum__7d__big"]) == ("String", None)
    build(capsys)
    document = as_json(capsys, "show", "checkout")
    assert [(c["name"], c["dtype"], c["feature"], c["of"]) for c in document["columns"]] == [
        ("user_spend__amount__sum__7d__big", "Float64", "user_spend", "amount__sum__7d__big"),
        ("buyer__city", "String", "user_profile", "city"),
        ("share", "Float64", None, "price / user_spend__amount__sum__7d__big"),
    ]
    assert (document["keys"], document["max_age"]) == (["user_id", "buyer_id"], "6h")
    assert document["defaults"] == {"amount__sum__7d__big": 0}
    assert document["complete"]


def test_services_are_listed_and_one_says_which_versions_it_reads_by_which_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [listed] = as_json(capsys, "services")["services"]
    assert (listed["complete"], listed["request"], listed["owner"]) == (
        False,
        ["price"],
        "payments",
    )
    assert as_json(capsys, "services", "checkout")["uses"][0]["version"] is None
    build(capsys)
    [listed] = as_json(capsys, "services")["services"]
    assert (listed["complete"], listed["keys"]) == (True, ["user_id", "buyer_id"])
    assert listed["columns"] == ["user_spend__amount__sum__7d__big", "buyer__city", "share"]
    document = as_json(capsys, "services", "checkout")
    assert document == as_json(capsys, "show", "checkout")
    use = {"owner": "risk", "version": "1.0.0", "fixed": False, "keys": {"user_id": "user_id"}}
    assert document["uses"][0] == {"feature": "user_spend", "prefix": "user_spend", **use}
    assert document["uses"][1]["keys"] == {"user_id": "buyer_id"}
    for width in ("80", "60"):
        monkeypatch.setenv("COLUMNS", width)
        texts = [printed(capsys, "services"), printed(capsys, "services", "checkout")]
        assert max(len(line) for text in texts for line in text.splitlines()) <= int(width)
        table, one = (" ".join(text.split()) for text in texts)
        assert "user_profile 1.0.0" in table or width == "60"
        assert "user_id = buyer_id" in one
    assert main(["services", "checkuot"]) == 1
    assert "no service 'checkuot'; did you mean 'checkout'" in capsys.readouterr().err
    assert main(["services", "user_spend"]) == 1
    Path("definitions.py").write_text(DEFINITIONS.replace("services=[checkout]", "services=[]"))
    assert "no service is defined" in printed(capsys, "services")
    assert as_json(capsys, "services") == {"services": []}


def test_a_search_finds_columns_owners_and_sources_and_says_so_where_nothing_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def found(*words: str) -> list[str]:
        return [hit["name"] for hit in as_json(capsys, "search", *words)["results"]]

    assert found("spend") == ["user_spend", "checkout", "user_peaks"]
    assert found("risk", "money") == ["user_spend"]
    assert found("payments") == found("price") == ["checkout"]
    assert found("users.parquet") == ["user_profile"]
    assert found("no such word") == []
    assert "did you mean user_spend or user_peaks?" in printed(capsys, "search", "user_spnd")
    assert as_json(capsys, "owners")["owners"] == [
        {"owner": "payments", "features": [], "services": ["checkout"]},
        {"owner": "risk", "features": ["user_spend"], "services": []},
        {"owner": None, "features": ["user_peaks", "user_profile"], "services": []},
    ]


def test_a_feature_that_is_only_stored_keeps_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    build(capsys)
    text = DEFINITIONS.replace("[user_spend, user_peaks, user_profile]", "[]")
    text = text.replace("services=[checkout]", "services=[]")
    Path("definitions.py").write_text(text)
    assert "only stored" in printed(capsys, "show", "user_peaks")
    document = as_json(capsys, "show", "user_peaks")
    assert (document["defined"], document["sources"]) == (False, ["feature:user_spend"])
    assert "feature:user_peaks" in as_json(capsys, "show", "user_spend")["downstream"]
    assert main(["show", "user_peak"]) == 1
    assert "did you mean 'user_peaks'" in capsys.readouterr().err


def test_lineage_is_of_all_or_around_one_and_as_a_chart(capsys: pytest.CaptureFixture[str]) -> None:
    build(capsys)
    train()
    document = as_json(capsys, "lineage", "user_peaks")
    assert document == {
        "nodes": [
            {"kind": "feature", "name": "user_spend", "version": "1.0.0"},
            {"kind": "feature", "name": "user_peaks", "version": "1.0.0"},
            {"kind": "source", "name": "events/", "version": None},
            {"kind": "source", "name": "rates.parquet", "version": None},
        ],
        "edges": [
            {"from": "source:events/", "to": "feature:user_spend"},
            {"from": "source:rates.parquet", "to": "feature:user_spend"},
            {"from": "feature:user_spend", "to": "feature:user_peaks"},
        ],
    }
    assert len(as_json(capsys, "lineage")["nodes"]) == 8
    assert main(["lineage", "--mermaid"]) == 0
    chart = capsys.readouterr().out.splitlines()
    assert chart[0] == "flowchart LR"
    assert sum("-->" in line for line in chart) == 7
    assert main(["lineage", "--mermaid", "--json"]) == 2


CLASSES = {
    name: value
    for module in pkgutil.iter_modules(generated.__path__)
    for name, value in vars(importlib.import_module(f"{generated.__name__}.{module.name}")).items()
    if isinstance(value, type) and attr.has(value)
}


def check(value: Any, hint: Any, where: str) -> None:
    """Fail unless a value of JSON is what a class of OpenLineage's client says, down to every field."""
    if get_origin(hint) in (Union, types.UnionType):
        [hint] = [kind for kind in get_args(hint) if kind is not type(None)]
    if get_origin(hint) is list:
        for item in value:
            check(item, get_args(hint)[0], f"{where}[]")
    elif get_origin(hint) is dict:
        for key, item in value.items():
            check(item, get_args(hint)[1], f"{where}.{key}")
    elif isinstance(hint, type) and attr.has(hint):
        kind = CLASSES[value["_schemaURL"].rpartition("/")[2]] if "_schemaURL" in value else hint
        assert issubclass(kind, hint), where
        fields, hints = (
            attr.fields_dict(kind),
            get_type_hints(kind),
        )
        needed = {name for name, field in fields.items() if field.default is attr.NOTHING}
        assert needed <= set(value) <= set(fields), where
        for name, item in value.items():
            check(item, hints[name], f"{where}.{name}")
    else:
        assert isinstance(value, hint), where


def uris_of(value: Any) -> Iterator[str]:
    """The texts that the published schema calls URIs, at any depth."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if key in ("producer", "schemaURL", "_producer", "_schemaURL"):
            yield item
        elif isinstance(item, (dict, list)):
            yield from uris_of(item)


def test_openlineage_events_are_what_its_client_says_they_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    build(capsys)
    train()
    printed(capsys, "lock", "checkout", "--model", "fraud_v3")
    printed(capsys, "export", "user_spend", "--delta", "lake/spend")
    assert "delta:lake/spend (exported table)" in printed(capsys, "lineage")
    assert main(["lineage", "--openlineage"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for event in events:
        assert datetime.fromisoformat(event["eventTime"]).tzinfo is UTC
        assert all(urlsplit(uri).scheme for uri in uris_of(event))
        check(event, event_v2.JobEvent, "event")
        event_v2.JobEvent(eventTime=event["eventTime"], job=event_v2.Job("a", "b"))
    by_job = {event["job"]["name"]: event for event in events}
    assert list(by_job)[:4] == [
        "feature:user_spend",
        "feature:user_peaks",
        "feature:user_profile",
        "service:checkout",
    ]
    spend, peaks, service = (by_job[name] for name in [*list(by_job)[:2], "service:checkout"])
    assert [(i["namespace"], i["name"]) for i in spend["inputs"]] == [
        ("file", str(tmp_path / "events")),
        ("file", str(tmp_path / "rates.parquet")),
    ]
    [output] = spend["outputs"]
    assert peaks["inputs"][0]["name"] == output["name"] == "feature:user_spend"
    assert output["facets"]["version"]["datasetVersion"] == "1.0.0"
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 2
    assert spend["job"]["facets"]["ownership"]["owners"] == [{"name": "risk", "type": "OWNER"}]
    lineage = service["outputs"][0]["facets"]["columnLineage"]["fields"]["buyer__city"]
    assert lineage["inputFields"][0]["field"] == "city"
    model = by_job["model:fraud_v3"]
    assert [i["name"] for i in model["inputs"]] == ["feature:user_spend", "feature:user_profile"]
    [trained] = [event for name, event in by_job.items() if name.startswith("set:")]
    assert trained["outputs"][0]["name"] == str(tmp_path / "train/one")
    exported = by_job[f"table:delta:{tmp_path}/lake/spend"]
    assert exported["inputs"][0]["name"] == "feature:user_spend"
    assert exported["outputs"][0]["namespace"] == "file"
    assert exported["outputs"][0]["name"] == str(tmp_path / "lake/spend")


@pytest.mark.parametrize(
    ("place", "namespace", "name"),
    [
        ("events/", "file", "/srv/shop/events"),
        ("/mnt/drops/*.parquet", "file", "/mnt/drops/*.parquet"),
        ("s3://lake/drops/", "s3://lake", "drops"),
        ("gs://lake", "gs://lake", "/"),
        ("delta:lake/spend", "file", "/srv/shop/lake/spend"),
        ("iceberg:s3://lake/tables/spend", "s3://lake", "tables/spend"),
        ("iceberg:prod:shop.spend", "iceberg://prod", "shop.spend"),
    ],
)
def test_a_place_has_one_name_in_openlineage_whoever_reads_or_writes_it(
    place: str, namespace: str, name: str
) -> None:
    assert named_place(place, Path("/srv/shop")) == (namespace, name)


def test_events_without_the_client_say_which_extra_brings_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openlineage.client.event_v2", None)
    assert main(["lineage", "--openlineage"]) == 1
    assert "lineage --openlineage needs the extra 'openlineage'" in capsys.readouterr().err

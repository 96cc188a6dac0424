"""A feature whose source is another feature: its rows are those of the version that is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import explain
from mlforge.build.result import BuildResult, Options
from mlforge.build.rows import Layout
from mlforge.cli import main
from mlforge.errors import BuildError, IntegrityError
from mlforge.maintenance import operations
from mlforge.maintenance.retention import Retention
from mlforge.maintenance.sampling import ALL
from mlforge.metrics import Rolling
from mlforge.retrieval.lineage import FILE
from mlforge.store import ObjectStore
from mlforge.store.feature_source import FeatureSource
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, at, rows

TOTALS = [Rolling("30d", {"amount__sum__2d": ["max", "count"]})]


def totals(df: Any) -> Any:
    return df.filter(pl.col("amount__sum__2d").is_not_null())


def per_week(df: Any) -> Any:
    return df.with_columns(pl.col("at").dt.truncate("1w").alias("at"))


@pytest.fixture(params=["polars", pytest.param("duckdb", marks=pytest.mark.slow)])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    project = Project(tmp_path, request.param)
    project.drop("a", rows((1, 0, 1.0), (2, 1.5, 5.0), (1, 3, 2.0)))
    return project


def features(project: Project, **changes: Any) -> list[Any]:
    spend = project.define(**changes)
    return [
        project.define(per_week, name="weeks", source="feature:peak", metrics=[]),
        project.define(totals, name="peak", source=spend, metrics=TOTALS),
        spend,
    ]


def build(project: Project, **changes: Any) -> dict[str, BuildResult]:
    return project.definitions(*features(project, **changes)).build()


def in_small_parts(project: Project, name: str) -> BuildResult:
    """Refresh with two rows a part, so that tables have many."""
    defs = project.definitions(*features(project))
    return defs.refresh(name, options=Options(cost_share=99, layout=Layout(2)))


def test_a_chain_is_built_in_order_and_each_version_names_its_source(project: Project) -> None:
    built = build(project)
    assert list(built) == ["spend", "peak", "weeks"]
    assert project.store.read_metadata("peak").source == "feature:spend@1.0.0"
    assert project.store.read_metadata("weeks").source == "feature:peak@1.0.0"
    peak = project.store.read("peak").select("user_id", "amount__sum__2d__max__30d")
    assert peak.rows() == [(1, 1.0), (2, 5.0), (1, 2.0)]


def test_drops_amendments_and_removals_go_through_to_what_a_full_build_gives(
    project: Project,
) -> None:
    build(project)
    project.drop("b", rows((1, 4, 7.0), (3, 2, 1.0)))
    assert [result.reason for result in build(project).values()] == ["data_refresh"] * 3
    project.drop("a", rows((1, 0, 1.5), (2, 1.5, 5.0)))
    build(project)
    project.drop("late", rows((1, -4, 9.0)))
    (project.events / "b.parquet").unlink()
    build(project)
    assert build(project)["peak"].reason == "unchanged"
    stored = {name: project.store.read(name) for name in ("peak", "weeks")}
    afresh = Project(project.root / "afresh", project.engine)
    for file in project.events.iterdir():
        afresh.drop(file.stem, pl.read_parquet(file))
    build(afresh)
    for name, rows_ in stored.items():
        assert afresh.store.read(name).equals(rows_)
    defs = project.definitions(*features(project))
    assert [defs.audit(name, ALL).mismatches for name in ("peak", "weeks")] == [0, 0]
    assert [defs.audit(name, ALL).unproven for name in ("peak", "weeks")] == [0, 0]


def test_only_parts_that_the_drop_changed_are_read(project: Project) -> None:
    project.drop("many", rows(*((n, float(n), 1.0) for n in range(40))))
    for name in ("spend", "peak"):
        in_small_parts(project, name)
    assert len(project.store.read_metadata("spend").parts) > 15
    project.drop("b", rows((1, 45, 7.0)))
    in_small_parts(project, "spend")
    result = in_small_parts(project, "peak")
    assert (result.changed, result.files_read, result.mode) == (True, 1, "incremental")


def test_a_part_of_a_bucket_is_the_same_file_on_every_machine_and_after_each_use(
    project: Project, tmp_path: Path
) -> None:
    objects, stats = MemoryObjects(), []
    for machine in ("one", "two", "two"):
        client = MemoryObjects(objects.stored)
        project.store = ObjectStore("s3://memory/store", tmp_path / machine, objects=client)
        build(project)
        stats.append(FeatureSource(project.store, "spend").scan().stats)
        states = project.store.file_states("peak")
        assert {path: state[:4] for path, state in states.items()} == stats[-1]
    assert stats[0] == stats[1] == stats[2]


def test_a_plan_shows_the_cascade_and_writes_nothing(project: Project) -> None:
    build(project)
    project.drop("b", rows((1, 4, 7.0)))
    before = sorted(project.store.path.rglob("*"))
    planned = project.definitions(*features(project)).plan()
    assert sorted(project.store.path.rglob("*")) == before
    built = build(project)
    shown = [
        (r.version, r.rows, r.reason, r.rows_changed, r.rows_recomputed) for r in planned.values()
    ]
    assert shown == [
        (r.version, r.rows, r.reason, r.rows_changed, r.rows_recomputed) for r in built.values()
    ]
    assert planned["weeks"].manifest is not None
    assert planned["weeks"].manifest.source == "feature:peak@1.0.1"


def test_without_a_version_of_its_source_a_feature_waits(project: Project) -> None:
    defs = project.definitions(*features(project))
    result = defs.build(features=["peak"])["peak"]
    assert (result.reason, result.version) == ("waiting", None)
    assert "the feature spend, has no version yet" in result.warnings[0]


def test_what_is_served_is_followed_also_back(project: Project) -> None:
    build(project)
    first = project.store.read("peak")
    project.drop("b", rows((1, 4, 7.0)))
    build(project)
    operations.rollback(project.store, "spend")
    defs = project.definitions(*features(project))
    result = defs.refresh("peak", attended=False)
    assert project.store.read("peak").equals(first)
    assert result.manifest is not None
    assert result.manifest.source == "feature:spend@1.0.0"
    assert result.warnings[0].startswith("its source is held, so spend@1.0.0 is what is read")


def test_a_version_that_is_published_behind_a_listing_is_listed_anew(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(project)
    scan, listed = FeatureSource.scan, []

    def published_behind(source: FeatureSource, known: Any = None) -> Any:
        listed.append(scan(source, known))
        if len(listed) == 1:
            project.drop("b", rows((1, 4, 7.0)))
            project.definitions(*features(project)).build(features=["spend"])
        return listed[-1]

    monkeypatch.setattr(FeatureSource, "scan", published_behind)
    with FeatureSource(project.store, "spend").reading() as listing:
        assert listing.version == "feature:spend@1.0.1"


def test_a_plan_reads_what_a_build_would_publish_upstream_at_the_end_of_a_hold(
    project: Project,
) -> None:
    build(project)
    project.drop("b", rows((1, 4, 7.0)))
    build(project)
    operations.rollback(project.store, "spend")
    planned = project.definitions(*features(project)).plan()
    assert project.store.books("spend").hold is not None
    assert planned["peak"].warnings == ()
    built = build(project)
    assert (built["spend"].version, built["peak"].warnings) == (planned["spend"].version, ())


def test_a_version_that_does_not_suit_is_refused_whole_and_the_last_stays(project: Project) -> None:
    build(project)
    stays = project.store.read("peak")
    less = [Rolling("7d", {"amount": ["sum"]})]
    with pytest.raises(BuildError) as failure:
        build(project, metrics=less)
    assert set(failure.value.failures) == {"peak"}
    assert project.store.read_metadata("spend").version.major == 2
    said = str(failure.value.failures["peak"])
    assert "no version can be made of spend@2.0.0, and 1.0.0 goes on being served" in said
    assert "amount__sum__2d" in said
    assert project.store.read("peak").equals(stays)
    assert build(project)["peak"].reason == "unchanged"


def test_a_part_that_is_gone_from_the_store_loses_no_row_in_silence(project: Project) -> None:
    project.drop("many", rows(*((n, float(n), 1.0) for n in range(12))))
    in_small_parts(project, "spend")
    version = project.store.read_metadata("spend").version
    file = Path(project.store.files("spend", version)[0])
    defs = project.definitions(*features(project))
    source = defs.source("peak")
    with source.reading() as listing:
        assert str(file) in {str(listing.absolute(path)) for path in listing.stats}
    file.unlink()
    with pytest.raises(IntegrityError, match=r"^spend: what is stored"):
        defs.refresh("peak")
    assert project.store.versions("peak") == []


def test_parts_of_equal_content_count_each(project: Project) -> None:
    project.drop("a", rows(*[(1, 0, 1.0)] * 8))
    spend = project.define(metrics=[])
    copy = project.define(name="copy", source=spend, metrics=[])
    defs = project.definitions(spend, copy)
    defs.refresh("spend", options=Options(layout=Layout(2)))
    assert len({part.hash for part in project.store.read_metadata("spend").parts}) == 1
    assert defs.refresh("copy").rows == 8


def test_versions_that_others_were_made_from_are_not_pruned(project: Project) -> None:
    build(project)
    for day in range(4):
        project.drop(f"d{day}", rows((1, 10 + day, 1.0)))
        if day % 2:
            build(project)
        else:
            project.definitions(*features(project)).build(features=["spend"])
    made_from = {
        str(project.store.read_metadata("peak", version).upstream[1])
        for version in project.store.list_versions("peak")
    }
    [pruned] = operations.prune(project.store, ["spend"], Retention(newest=1))
    assert set(project.store.list_versions("spend")) == made_from
    assert pruned.versions == ("1.0.1", "1.0.3")


def test_explain_goes_down_to_the_row_that_a_row_was_made_from(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    build(project)
    explained = explain("peak", {"user_id": 1}, project.store, at=at(4))
    assert explained.rows[FILE].to_list() == ["spend@1.0.0"] * 2
    below = explained.upstream
    assert below is not None
    assert (below.feature, below.version, below.entity) == ("spend", "1.0.0", {"user_id": 1})
    assert below.rows[FILE].to_list() == ["a.parquet"] * 2
    assert explained.to_json()["upstream"]["values"][0]["value"] == 2.0
    weeks = explain("weeks", {"user_id": 1}, project.store)
    assert weeks.upstream is None  # its function makes other times


def test_the_commands_show_the_chain(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / "definitions.py").write_text(
        "import polars as pl\nfrom mlforge import *\nfrom mlforge.metrics import Rolling\n"
        "from mlforge.store import LocalStore\n"
        "@feature(keys=['user_id'], source='events', timestamp='at', metrics=[Rolling('7d', {'amount': ['sum']})])\n"
        "def spend(df): return df\n"
        "@feature(keys=[], source=spend, timestamp='at', metrics=[Rolling('7d', {'amount__sum__7d': ['max']})])\n"
        "def top(df): return df\n"
        "defs = Definitions(store=LocalStore('store'), features=[top, spend])\n"
    )
    options = ["--definitions", str(project.root / "definitions.py")]
    assert main(["validate", *options]) == 0
    assert main(["plan", *options]) == 0
    assert "of spend 1.0.0" in capsys.readouterr().out
    assert main(["build", *options]) == 0
    assert main(["verify", *options]) == 0
    assert main(["list", *options]) == 0
    assert "feature:spend" in capsys.readouterr().out
    assert main(["explain", "top", *options]) == 0
    assert "made from a row of spend" in capsys.readouterr().out

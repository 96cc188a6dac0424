"""Derived columns: one meaning in stored rows, training, online answers, `explain` and the audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from redis import Redis

from mlforge import explain, get_online_features, get_training_data
from mlforge.build.diff import diff
from mlforge.cli import main
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.errors import BuildError, DefinitionError, OnlineError, RetrievalError
from mlforge.frames.encoding import key_hash
from mlforge.maintenance.sampling import ALL
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.store.manifest_json import from_json, to_json
from tests.support.projects import Project, at, rows

METRICS = [Rolling(["2d", "7d"], {"amount": ["sum", "count"]})]
DERIVE = {
    "burst": "amount__count__2d / amount__count__7d",
    "age": "days(t - '2026-01-01')",
    "calm": "coalesce(burst, 0) < 0.9 and age >= 1",
    "shard": "user_id % 2",
    "spent": "coalesce(amount__sum__7d, 0)",
}


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    project = Project(tmp_path, getattr(request, "param", "polars"))
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0), (2, 1.5, 5.0)))
    return project


def everything(df: Any) -> Any:
    return df


def derived(project: Project, **changes: Any) -> Any:
    return project.define(**{"metrics": METRICS, "derive": DERIVE, **changes})


def latest_of_user(df: pl.DataFrame) -> pl.DataFrame:
    return df.sort("at").unique("user_id", keep="last", maintain_order=True).drop("at")


def test_stored_rows_have_the_values_of_their_own_instant(project: Project) -> None:
    project.definitions(
        derived(project),
        derived(project, name="days", interval="1d"),
        derived(project, name="raw", metrics=[], derive={"half": "amount / 2", "age": "days(t - '2026-01-01')"}),
        project.define(
            latest_of_user, name="last", metrics=[], timestamp=None, derive={"half": "amount / 2"}
        ),
    ).build()  # fmt: skip
    store = project.store
    assert store.read("spend").select("user_id", "burst", "age", "calm").rows() == [
        (1, 1.0, 0.0, False),
        (2, 1.0, 1.5, False),
        (1, 0.5, 3.0, True),
    ]
    assert store.read("days").select("burst", "age").rows() == [(1.0, 1.0), (1.0, 2.0), (0.5, 4.0)]
    assert store.read("raw").select("half", "age").rows() == [(0.5, 0.0), (2.5, 1.5), (1.0, 3.0)]
    assert store.read("last")["half"].sort().to_list() == [1.0, 2.5]


def test_training_has_the_values_of_each_rows_own_instant(project: Project) -> None:
    project.definitions(derived(project), derived(project, name="days", interval="1d")).build()
    spine = pl.DataFrame(
        {"user_id": [1, 1, 3, None, 2], "at": [at(3.5), at(4.25), at(2.0), at(1.0), None]}
    )
    answer = get_training_data(spine, ["spend", "days"], project.store)
    assert answer["spend__age"].to_list() == [3.5, 4.25, 2.0, 1.0, None]
    assert answer["spend__burst"].to_list() == [0.5, 0.5, None, None, None]
    assert answer["spend__calm"].to_list() == [True, True, True, True, None]
    assert answer["spend__shard"].to_list() == [1, 1, 1, None, 0]
    assert answer["spend__spent"].to_list() == [3.0, 3.0, 0.0, 0.0, 0.0]
    # Windows are those of the boundary, `t` is the row's own.
    assert answer["days__burst"].to_list() == [0.0, 0.5, None, None, None]
    assert answer["days__age"].to_list() == [3.5, 4.25, 2.0, 1.0, None]


@pytest.mark.parametrize("interval", [None, "1d"])
def test_online_answers_are_those_of_training(
    project: Project, online: RedisStore, interval: str | None
) -> None:
    defs = project.definitions(derived(project, interval=interval), online_store=online)
    with clock.fixed(to_us(at(5))):
        defs.build(online=True)
        target = online.books("spend").target  # type: ignore[union-attr]
        assert target is not None
        assert target.as_of is not None
        users = [1, 2, 3]
        entities = [{"user_id": user} for user in users]
        spine = pl.DataFrame({"user_id": users}).with_columns(
            at=pl.lit(target.as_of).cast(pl.Datetime("us", "UTC"))
        )
        training = get_training_data(spine, [("spend", target.version)], project.store).drop("at")
        assert (
            get_online_features(["spend"], entities, online, at=target.as_of) == training.to_dicts()
        )
        [now] = get_online_features(["spend"], [{"user_id": 1}], online)
        [later] = get_online_features(["spend"], [{"user_id": 1}], online, at="2026-01-21")
        assert (now["spend__age"], later["spend__age"]) == (5.0, 20.0)
        same = now.keys() - {"spend__age"}
        assert {name: now[name] for name in same} == {name: later[name] for name in same}
        assert defs.audit("spend", ALL).mismatches == 0
        with pytest.raises(RetrievalError, match="at='soon' is no instant"):
            get_online_features(["spend"], entities, online, at="soon")  # fmt: skip


def test_a_row_online_holds_nothing_that_time_alone_changes(
    project: Project, online: RedisStore, redis_url: str
) -> None:
    defs = project.definitions(derived(project), online_store=online)
    redis = Redis.from_url(redis_url, decode_responses=True)
    with clock.fixed(to_us(at(5))):
        defs.build(online=True)
        row = json.loads(str(redis.get(f"mlforge:spend:{key_hash({'user_id': 1})}")))
        assert {"burst", "shard", "spent"} <= row.keys()
        assert row.keys().isdisjoint(("age", "calm"))
    with clock.fixed(to_us(at(5.5))):
        result = defs.build(online=True)["spend"]
        assert (result.changed, result.keys_written) == (False, 0)
        [answer] = get_online_features(["spend"], [{"user_id": 1}], online)
        assert answer["spend__age"] == 5.5


def test_of_an_entity_without_a_row_everything_is_derived_at_the_read(
    project: Project, online: RedisStore
) -> None:
    feature = project.define(
        latest_of_user,
        metrics=[],
        timestamp=None,
        derive={"known": "not is_null(amount)", "half": "amount / 2", "id": "user_id + 1"},
    )
    project.definitions(feature, online_store=online).build(online=True)
    entities: list[dict[str, object]] = [{"user_id": "9"}, {"user_id": 1}]
    answers = get_online_features(["spend"], entities, online)
    names = ("spend__known", "spend__half", "spend__id")
    assert [tuple(answer[name] for name in names) for answer in answers] == [
        (False, None, 10),
        (True, 1.0, 2),
    ]


@pytest.mark.parametrize("project", ["polars", "duckdb"], indirect=True)
def test_drops_give_what_a_full_build_gives(project: Project) -> None:
    defs = project.definitions(derived(project))
    project.drop("many", rows(*((n % 5, n / 7, float(n)) for n in range(60))))
    defs.build()
    project.drop("late", rows((3, 2.2, 100.0), (1, 8.1, 7.0)))
    assert defs.build()["spend"].mode == "incremental"
    by_drops = project.store.read("spend")
    defs.build(full=True, version="2.0.0")
    assert project.store.read("spend").equals(by_drops)
    assert diff(project.store, "spend", "1.0.1", "2.0.0").rows.total == 0  # type: ignore[union-attr]
    assert defs.audit("spend", ALL).mismatches == 0


def test_an_added_column_is_minor_a_changed_one_minor_a_removed_one_major(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    half, third = {"part": "amount__sum__7d / 2"}, {"part": "amount__sum__7d / 3"}
    histories = [{}, half, third, {"part": "amount__sum__7d > 2"}, {}]
    results = [project.build(derived(project, derive=derive)) for derive in histories]
    assert [(result.version, result.reason) for result in results] == [
        ("1.0.0", "first_build"),
        ("1.1.0", "added_columns"),
        ("1.2.0", "config_changed"),
        ("2.0.0", "dtype_changed"),
        ("3.0.0", "columns_removed"),
    ]
    assert [result.details for result in results[1:3]] == [("part",), ("part",)]
    read = [project.store.read("spend", version=v) for v in ("1.1.0", "1.2.0")]
    assert [frame["part"].to_list() for frame in read] == [[0.5, 2.5, 1.5], [1 / 3, 5 / 3, 1.0]]
    changed = diff(project.store, "spend", "1.1.0", "1.2.0")
    assert (changed.bump, changed.rows and changed.rows.changed) == ("minor", 3)
    assert main(["diff", "spend", "1.1.0", "1.2.0", *_definitions(project)]) == 11
    assert "part: amount__sum__7d / 2 -> amount__sum__7d / 3" in capsys.readouterr().out
    assert not project.build(derived(project, derive={})).changed


def test_a_version_keeps_the_text_and_one_without_any_reads_as_before(project: Project) -> None:
    project.build(derived(project, derive={}))
    before = to_json(project.store.resolve("spend"))
    assert (before["format"], "derive" in before) == (1, False)
    project.build(derived(project))
    after = to_json(project.store.resolve("spend"))
    assert after["format"] == 2
    assert after["derive"] == [{"name": n, "expression": text} for n, text in DERIVE.items()]
    assert from_json(after, "here").spec == project.store.resolve("spend").spec


def test_a_push_of_another_expression_writes_all_rows(project: Project, online: RedisStore) -> None:
    with clock.fixed(to_us(at(5))):
        for derive, expected in (
            ({"part": "amount__sum__7d / 2"}, 1.5),
            ({"part": "amount__sum__7d / 3"}, 1.0),
            ({"part": "amount__sum__7d / hours(t - '2026-01-05')"}, 0.125),
            ({}, None),
        ):
            defs = project.definitions(derived(project, derive=derive), online_store=online)
            assert defs.build(online=True)["spend"].keys_written == 2
            [answer] = get_online_features(["spend"], [{"user_id": 1}], online)
            assert answer.get("spend__part") == expected


@pytest.mark.parametrize(
    ("derive", "expected"),
    [
        ({"x": "amount__sum__8d / 2"}, "derive 'x': no column 'amount__sum__8d'.*amount__sum__7d"),
        ({"x": "amount * 2"}, "derive 'x': no column 'amount'.*did you mean 'amount__sum__2d'"),
        (
            {"x": "y + 1", "y": "user_id"},
            "derive 'x': 'y' is derived after this column.*put 'y' before 'x'",
        ),
        ({"x": "at - t"}, "derive 'x': 'at' is the events' time.*write t"),
        ({"x": "amount__sum__7d +"}, "derive 'x': this does not parse"),
        ({"amount__sum__7d": "user_id"}, "derive 'amount__sum__7d' has the name of another column"),
        ({"user_id": "t"}, "derive 'user_id' has the name of another column"),
        ({"t": "user_id"}, "derive 't' has the name of the instant of evaluation"),
        ({"a b": "user_id"}, "derive 'a b' is not a name"),
        ({"x": 3}, "derive 'x' must be a text, not 3"),
        (["x"], "derive must be a dict"),
        ({"x": "amount__sum__7d + (t - t)"}, r"derive 'x': \+ mixes amount__sum__7d \(a number\)"),
        ({"x": "t - t"}, "derive 'x': a column cannot be a duration"),
    ],
)
def test_a_wrong_text_is_refused_where_it_is_defined(
    derive: Any, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(DefinitionError, match=f"(?s)spend: {expected}"):
        derived(Project(tmp_path), derive=derive)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"derive": {"x": "user_id + (t - t)"}}, "mixes user_id \\(a whole number\\)"),
        ({"derive": {"x": "amount + 'a'"}, "metrics": []}, "mixes amount \\(a number\\) and 'a'"),
        ({"derive": {"x": "amuont * 2"}, "metrics": []}, "no column 'amuont'.*'amount'"),
        ({"derive": {"amount": "user_id"}, "metrics": []}, "the name of another column"),
        ({"derive": {"x": "at"}, "metrics": []}, "no column 'at'"),
    ],
)
def test_what_does_not_fit_the_events_is_refused_by_build_and_validate(
    changes: Any, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0)))
    with pytest.raises(BuildError, match=f"(?s)derive '?.*{expected}") as caught:
        project.build(derived(project, **changes))
    assert isinstance(caught.value.failures["spend"], DefinitionError)


def test_a_column_that_some_files_lack_is_null_there(project: Project) -> None:
    project.drop("b", rows((7, 2, 4.0)).with_columns(fee=pl.lit(1.0), note=pl.lit(None)))
    derive = {"net": "amount - fee", "noted": "not is_null(note)", "twice": "note * 2"}
    project.build(project.define(everything, metrics=[], derive=derive))
    table = project.store.read("spend").sort("user_id", "at")
    assert table["net"].to_list() == [None, None, None, 3.0]
    assert table["noted"].to_list() == [False] * 4
    assert table["twice"].to_list() == [None] * 4


def test_t_is_the_instant_also_where_a_column_has_that_name(project: Project) -> None:
    named = project.define(everything, metrics=[], derive={"age": "days(t - '2026-01-01')"})
    project.drop("a", rows((1, 2, 5.0)).rename({"amount": "t"}))
    project.build(named)
    assert project.store.read("spend").select("t", "age").rows() == [(5.0, 2.0)]
    with pytest.raises(DefinitionError, match="a feature without timestamp= has no instant t"):
        project.define(
            latest_of_user, name="last", metrics=[], timestamp=None, derive={"x": "t * 2"}
        )


def test_explain_shows_the_expression_with_its_inputs(
    project: Project, online: RedisStore, capsys: pytest.CaptureFixture[str]
) -> None:
    defs = project.definitions(derived(project), online_store=online)
    with clock.fixed(to_us(at(5))):
        defs.build(online=True)
        explanation = explain("spend", {"user_id": 1}, project.store, online=online)
    by_name = {value.column: value for value in explanation.values}
    assert by_name["burst"].expression == DERIVE["burst"]
    assert by_name["burst"].inputs == {"amount__count__2d": 1, "amount__count__7d": 2}
    assert by_name["calm"].inputs == {"burst": 0.5, "age": 3.0}
    assert by_name["age"].inputs == {"t": at(3)}
    assert explanation.agrees is True
    document = explanation.to_json()["values"][-1]
    assert document["expression"] == DERIVE["spent"]
    assert document["inputs"] == {"amount__sum__7d": 3.0}
    assert main(["explain", "spend", "user_id=1", *_definitions(project)]) == 0
    page = capsys.readouterr().out
    assert DERIVE["age"] in page
    assert "burst = 0.5, age = 3.0" in page
    assert main(["inspect", "spend", *_definitions(project)]) == 0
    assert DERIVE["burst"] in capsys.readouterr().out


def test_the_audit_sees_a_derived_value_that_does_not_follow_from_its_row(
    project: Project, online: RedisStore, redis_url: str
) -> None:
    defs = project.definitions(derived(project), online_store=online)
    key = f"mlforge:spend:{key_hash({'user_id': 1})}"
    redis = Redis.from_url(redis_url, decode_responses=True)
    with clock.fixed(to_us(at(5))):
        defs.build(online=True)
        assert defs.audit("spend", ALL).is_proof
        redis.set(key, json.dumps({**json.loads(str(redis.get(key))), "burst": 0.75}))
        audit = defs.audit("spend", ALL)
        assert audit.mismatches == 1
        assert "online burst" in audit.first[0]
        assert explain("spend", {"user_id": 1}, project.store, online=online).agrees is False


def test_books_of_a_newer_language_or_with_a_wrong_text_are_refused(
    project: Project, online: RedisStore, redis_url: str
) -> None:
    redis = Redis.from_url(redis_url, decode_responses=True)
    with clock.fixed(to_us(at(5))):
        project.definitions(derived(project), online_store=online).build(online=True)
        document = json.loads(str(redis.hget("mlforge:spend", "derive")))
        redis.hset("mlforge:spend", "derive", json.dumps({**document, "language": 2}))
        with pytest.raises(OnlineError, match="newer mlforge; upgrade"):
            get_online_features(["spend"], [{"user_id": 1}], online)
        document["columns"][1]["expression"] = "months(t)"
        redis.hset("mlforge:spend", "derive", json.dumps(document))
        with pytest.raises(OnlineError, match=r"(?s)no function 'months'.*push again"):
            get_online_features(["spend"], [{"user_id": 1}], online)


def test_a_feature_without_keys_derives_too(project: Project, online: RedisStore) -> None:
    def total(df: Any) -> pl.DataFrame:
        return df.select(pl.col("amount").sum(), pl.len().alias("orders"))

    defs = project.definitions(
        derived(project, keys=[], name="all", derive={"mean": "amount__sum__7d / amount__count__7d"}),
        project.define(total, keys=[], name="total", metrics=[], timestamp=None, derive={"mean": "amount / orders"}),
        online_store=online,
    )  # fmt: skip
    with clock.fixed(to_us(at(5))):
        defs.build(online=True)
        [row] = get_online_features(["all", "total"], [{}], online)
    assert (row["all__mean"], row["total__mean"]) == (8 / 3, 8 / 3)
    spine = pl.DataFrame({"at": [at(4), at(0.5)]})
    assert get_training_data(spine, ["all"], project.store)["all__mean"].to_list() == [8 / 3, 1.0]
    assert get_training_data(pl.DataFrame(height=2), ["total"], project.store).height == 2


def _definitions(project: Project) -> list[str]:
    path = project.root / "definitions.py"
    path.write_text(
        "from mlforge import Definitions\nfrom mlforge.store import LocalStore\n"
        f"defs = Definitions(store=LocalStore({str(project.root / 'store')!r}), features=[], partial=True)\n"
    )
    return ["--definitions", str(path)]

"""Columns that a request chooses, features under other names, and services: training and online alike."""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions, Service, get_online_features, get_training_data
from mlforge.core import clock
from mlforge.core.values import from_us, to_us
from mlforge.engines import Engine
from mlforge.errors import DefinitionError, ExpressionError, MlforgeError, NotServed, RetrievalError
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.services.description import describe, service_of
from tests.support.projects import Project, at, rows

NOW = at(5)
USERS = [{"user_id": user} for user in (1, 2, 3)]
SUM = "amount__sum__7d"


def latest_of_user(df: pl.DataFrame) -> pl.DataFrame:
    return df.sort("at").unique("user_id", keep="last", maintain_order=True).drop("at")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0), (2, 1.5, 5.0), (4, 5, 7.0)))
    return project


@pytest.fixture
def defs(project: Project) -> Definitions:
    """Features of every kind, all of whose values are as of NOW once they are pushed then."""
    days = project.define(name="days", interval="1d", metrics=[Rolling("2d", {"amount": "sum"})])
    raw = project.define(
        name="raw", metrics=[], derive={"half": "amount / 2", "own": "user_id % 2"}
    )
    last = project.define(latest_of_user, name="last", metrics=[], timestamp=None)
    spend = project.define(
        derive={"burst": "amount__sum__2d / amount__sum__7d", "age": "days(t - '2026-01-01')"}
    )
    return project.definitions(spend, days, raw, last)


@pytest.fixture
def served(defs: Definitions, online: RedisStore) -> Definitions:
    defs.online_store = online
    with clock.fixed(to_us(NOW)):
        defs.build(online=True)
    return defs


def as_texts(df: pl.DataFrame) -> pl.DataFrame:
    return df.with_columns(pl.col("user_id").cast(pl.String))


def spine_of(entities: list[dict[str, Any]], **columns: Any) -> pl.DataFrame:
    return pl.DataFrame(entities).with_columns(at=pl.lit(NOW), **columns)


def test_only_the_columns_that_are_chosen_are_computed_and_answered(
    defs: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs.build()
    spend, raw = defs.feature("spend"), defs.feature("raw")
    computed: list[str] = []
    aggregated = Engine._aggregated

    def noted(self: Engine, line: pl.DataFrame, metrics: Any, *rest: Any) -> pl.DataFrame:
        computed.extend(metric.name for metric in metrics)
        return aggregated(self, line, metrics, *rest)

    monkeypatch.setattr(Engine, "_aggregated", noted)
    spine = spine_of(USERS)
    whole = get_training_data(spine, ["spend", "raw"], defs.store)
    computed.clear()
    chosen = get_training_data(spine, [spend["amount__count__2d", SUM], raw["half"]], defs.store)
    assert sorted(computed) == ["amount__count__2d", SUM]
    names = ["spend__amount__count__2d", f"spend__{SUM}", "raw__half"]
    assert chosen.columns == ["user_id", "at", *names]
    assert chosen.equals(whole.select(chosen.columns))
    computed.clear()
    burst = get_training_data(spine, [(spend["burst"], "1.0.0")], defs.store)
    assert sorted(computed) == ["amount__sum__2d", SUM]  # what it depends on
    assert burst.equals(whole.select(burst.columns))
    age = get_training_data(spine, [spend["age"]], defs.store)
    assert age["spend__age"].to_list() == [5.0] * 3


def test_a_selection_answers_online_what_it_answers_in_training(
    served: Definitions, online: RedisStore
) -> None:
    spend, raw = served.feature("spend"), served.feature("raw")
    features = [
        spend.as_("seller", user_id="seller_id")["burst", SUM],
        spend[SUM],
        raw.as_("theirs", user_id="seller_id"),
        "last",
    ]
    entities = [{"user_id": a, "seller_id": b} for a, b in ((1, 2), (2, 1), (3, 3), (4, 1))]
    training = get_training_data(spine_of(entities), features, served.store)
    answers = get_online_features(features, entities, online, at=NOW)
    assert answers == training.drop("at").to_dicts()
    assert list(answers[0]) == [
        "user_id",
        "seller_id",
        "seller__burst",
        f"seller__{SUM}",
        f"spend__{SUM}",
        "theirs__amount",
        "theirs__half",
        "theirs__own",
        "last__amount",
    ]
    assert answers[0][f"seller__{SUM}"] == 5.0
    assert answers[0]["theirs__own"] == 0
    with pytest.raises(RetrievalError, match="'seller_id' is missing"):
        get_online_features(features, [{"user_id": 1}], online)
    with pytest.raises(RetrievalError, match=r"raw: no column 'amuont'; did you mean 'amount'\?"):
        get_online_features([raw["amuont"]], USERS, online)
    with pytest.raises(NotServed, match=r"spend 9\.0\.0 is not served"):
        get_online_features([(spend[SUM], "9.0.0")], USERS, online)


def test_what_no_selection_can_mean_is_refused(served: Definitions, online: RedisStore) -> None:
    spend, raw, store = served.feature("spend"), served.feature("raw"), served.store
    for refused, message in [
        (lambda: spend["amont__sum__7d"], r"no column 'amont__sum__7d'; did you mean 'amount__sum"),
        (lambda: spend[SUM, SUM], "names a column twice"),
        (lambda: spend[()], "no column is named"),
        (lambda: spend[1], "must be a text, not 1"),
        (lambda: [*spend], "must be a text, not 0"),
        (lambda: spend.as_("a b"), "prefix name 'a b' is not allowed"),
        (lambda: spend.as_("a", usr_id="b"), r"no key 'usr_id'; did you mean 'user_id'\?"),
        (lambda: spend.as_("a", user_id=""), "the name of 'user_id' must be a text"),
    ]:
        with pytest.raises(DefinitionError, match=message):
            refused()  # type: ignore[no-untyped-call]
    spine = spine_of(USERS)
    for features, message in [
        ([raw["amuont"]], r"no column 'amuont'; did you mean 'amount'\?"),
        ([spend, spend[SUM]], f"would both be 'spend__{SUM}'"),
        ([spend.as_("x"), raw.as_("x")["half"], spend.as_("x")[SUM]], f"would both be 'x__{SUM}'"),
        ([spend[SUM], (spend[SUM], "1.0.0")], "asked for twice"),
        ([spend.as_("other", user_id="lost")], "spend: the spine has no key column 'lost'"),
        ([3], "3 is neither a feature nor its name"),
        (("raw", "1.0.0"), r"features is one pair; write features=\[\('raw', '1.0.0'\)\]"),
    ]:
        with pytest.raises(RetrievalError, match=message):
            get_training_data(spine, features, store)  # type: ignore[arg-type]
    with pytest.raises(RetrievalError, match=f"would both be 'spend__{SUM}'"):
        get_online_features([spend, spend[SUM]], USERS, online)


def test_a_service_gives_the_same_columns_in_training_and_online(
    served: Definitions, online: RedisStore
) -> None:
    spend, days = served.feature("spend"), served.feature("days")
    service = Service(
        "checkout",
        features=[spend[SUM], spend.as_("seller", user_id="seller_id")[SUM], days, "last"],
        request={"price": pl.Float64, "seen": pl.Datetime, "kind": pl.String},
        derive={
            "share": f"price / spend__{SUM}",
            "both": f"share + seller__{SUM}",
            "since": "hours(t - seen)",
            "gift": "kind == 'gift'",
        },
        defaults={SUM: 10, "days__amount__sum__2d": -1.5},
        max_age="6h",
    )
    entities = [{"user_id": a, "seller_id": b} for a, b in ((1, 2), (3, 1), (4, 9))]
    request = [
        {"price": 4, "seen": at(4), "kind": "gift"},
        {"price": float("nan"), "seen": at(4.5).replace(tzinfo=None), "kind": None},
        {"price": Decimal("5.0"), "seen": None, "kind": "own"},
    ]
    columns = pl.DataFrame(
        {
            "price": pl.Series([4.0, float("nan"), 5.0]),
            "seen": pl.Series([at(4), at(4.5), None], dtype=pl.Datetime("ms", "UTC")),
            "kind": pl.Series(["gift", None, "own"], dtype=pl.Categorical),
        }
    )
    spine = spine_of(entities).hstack(columns)
    training = get_training_data(spine, service, served.store)
    with clock.fixed(to_us(NOW)):
        answers = get_online_features(service, entities, online, request=request)
    own = training.columns[len(spine.columns) :]
    assert [name for name in answers[0] if name in own] == own
    assert [{name: answer[name] for name in own} for answer in answers] == training[own].to_dicts()
    first, second, third = answers
    assert (first["share"], first["both"], first["since"], first["gift"]) == (
        4 / 3,
        4 / 3 + 5,
        24.0,
        True,
    )
    assert (second[f"spend__{SUM}"], second["price"], second["share"]) == (10.0, None, None)
    assert (third["days__amount__sum__2d"], third["since"], third[f"seller__{SUM}"]) == (
        -1.5,
        None,
        10.0,
    )
    with clock.fixed(to_us(at(5.3))):
        with pytest.raises(NotServed, match="older than max_age allows"):
            get_online_features(service, entities, online, request=request)
        assert get_online_features(service, entities, online, max_age="1d", request=request)


def test_details_tell_what_stands_behind_each_value(
    served: Definitions, online: RedisStore
) -> None:
    spend = served.feature("spend")
    total, count = "spend__amount__sum__2d", "spend__amount__count__2d"
    service = Service(
        "s",
        features=[spend["amount__sum__2d", "amount__count__2d"], "last"],
        request={"x": pl.Float32},
        derive={"y": "last__amount + x", "z": "x * 3", "who": "user_id * 2"},
        defaults={"amount__sum__2d": 0},
        max_age="6h",
    )
    request, later = [{"x": 0.1}] * 3, at(5.1)
    with clock.fixed(to_us(later)):
        plain = get_online_features(service, USERS, online, request=request)
        detailed = get_online_features(service, USERS, online, request=request, details=True)
    one, two, three = (answer.pop("details") for answer in detailed)
    assert detailed == plain
    training = get_training_data(spine_of(USERS, x=pl.lit(0.1)), service, served.store)
    own = [total, count, "last__amount", "y", "z", "who"]
    assert [{name: answer[name] for name in own} for answer in plain] == training[own].to_dicts()
    assert list(one) == own
    known = one[total]
    assert (known.status, known.version, known.as_of, known.age) == (
        "present",
        "1.0.0",
        NOW,
        later - NOW,
    )
    assert [two[name].status for name in own] == ["empty", "empty", *["present"] * 4]
    assert two[total].why.endswith("; the default takes its place")
    assert [three[name].status for name in own] == [
        "empty",
        "empty",
        "missing",
        "empty",
        "present",
        "present",
    ]
    assert (one["y"].as_of, one["y"].age, one["who"].age) == (None, later - NOW, None)
    for moment, status in [(at(5.25), "present"), (at(5.26), "stale")]:  # 6 hours, and more
        with clock.fixed(to_us(moment)):
            [answer] = get_online_features(
                service, USERS[:1], online, request=request[:1], details=True
            )
        assert {answer["details"][name].status for name in (total, "last__amount", "y")} == {status}
    clash = Service("s", ["last"], derive={"details": "1"})
    with pytest.raises(RetrievalError, match="has a column 'details'"):
        get_online_features(clash, USERS, online, details=True)
    kept = Service(
        "s",
        ["last"],
        defaults={
            "a": Decimal("1.5"),
            "b": date(2026, 1, 2),
            "c": datetime(2026, 1, 2, tzinfo=UTC),
        },
    )
    assert (
        service_of(
            Service, json.loads(json.dumps(describe(kept))), {"last": served.feature("last").spec}
        ).defaults
        == kept.defaults
    )


# A column of each kind that a service may derive from.
FEATURE_COLUMNS = {
    "spend": ["amount__sum__2d", SUM, "amount__count__2d", "burst", "age"],
    "days": ["amount__sum__2d"],
    "raw": ["amount", "half", "own"],
    "last": ["amount"],
}
EXPRESSIONS = [
    "coalesce({a}, {b}, 0)",
    "{a} / {b}",
    "{a} > {b}",
    "price * {a} - whole",
    "whole // 3 + {b}",
    "hours(t - seen) * {a}",
    "is_null({a}) or flag",
    "{a} if flag else {b}",
    "length(word) + {a}",
    "day < '2026-01-03'",
    "log1p(abs(price)) + coalesce({a}, 1)",
    "small * 3 + {a}",
]
REQUEST: dict[str, Any] = {
    "price": pl.Float64,
    "small": pl.Float32,
    "whole": pl.Int32,
    "flag": pl.Boolean,
    "word": pl.String,
    "seen": pl.Datetime("us", "UTC"),
    "day": pl.Date,
}


def random_service(draw: random.Random, defs: Definitions) -> Service:
    """A service of random columns under random prefixes, with defaults and expressions over all of them."""
    features, labels, selected = [], [], []
    for position in range(draw.randint(1, 4)):
        name = draw.choice(list(FEATURE_COLUMNS))
        columns = draw.sample(FEATURE_COLUMNS[name], draw.randint(1, len(FEATURE_COLUMNS[name])))
        key = draw.choice(["user_id", "other"])
        use = defs.feature(name).as_(f"{name}{position}", user_id=key)
        features.append(use[tuple(columns)])
        labels += [f"{name}{position}__{column}" for column in columns]
        selected += columns
    derive = {
        f"d{i}": draw.choice(EXPRESSIONS).format(a=draw.choice(labels), b=draw.choice(labels))
        for i in range(draw.randint(0, 4))
    }
    names = [name for name in [*labels, *selected] if not name.endswith("own")]
    defaults = {name: draw.choice([0, 7]) for name in draw.sample(names, len(names) // 2)}
    return Service("random", features, request=REQUEST, derive=derive, defaults=defaults)


def random_request(draw: random.Random) -> dict[str, Any]:
    moment = from_us(to_us(NOW) - draw.randint(0, 10**12))
    row = {
        "price": draw.choice([0.0, -0.0, 1.5, float("nan"), float("inf"), 1e300]),
        "small": draw.choice([0.1, -2.5e-3]),
        "whole": draw.choice([0, -7, 2**31 - 1]),
        "flag": draw.choice([True, False]),
        "word": draw.choice(["", "gift"]),
        "seen": moment,
        "day": moment.date(),
    }
    return {name: None if draw.random() < 0.2 else value for name, value in row.items()}


def test_random_services_over_random_rows_answer_alike(
    served: Definitions, online: RedisStore
) -> None:
    draw = random.Random(11)
    for _ in range(15):
        drawn = random_service(draw, served)
        document = json.loads(json.dumps(describe(drawn)))
        service = service_of(Service, document, {f.name: f.spec for f in served.features.values()})
        assert describe(service) == document
        entities = [
            {"user_id": draw.randint(1, 5), "other": draw.randint(1, 5)}
            for _ in range(draw.randint(1, 6))
        ]
        keys = {
            name
            for use in service.features
            for name in (dict(use.renamed).get("user_id", "user_id"),)
        }
        entities = [{name: entity[name] for name in sorted(keys)} for entity in entities]
        request = [random_request(draw) for _ in entities]
        spine = spine_of(entities).hstack(pl.DataFrame(request, schema=REQUEST))
        training = get_training_data(spine, service, served.store, timestamp="at")
        own = training.columns[len(spine.columns) :]
        answers = get_online_features(service, entities, online, at=NOW, request=request)
        assert list(answers[0]) == [*sorted(keys), *REQUEST, *own]
        alike = [{name: answer[name] for name in own} for answer in answers]
        for answer, row in zip(alike, training[own].to_dicts(), strict=True):
            for name in own:
                assert same(answer[name], row[name]), (service, name)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, floats but for their last bits."""
    if type(a) is float and type(b) is float:
        return math.isclose(a, b, rel_tol=1e-12)
    return type(a) is type(b) and bool(a == b)


def test_what_no_service_can_mean_is_refused(served: Definitions, online: RedisStore) -> None:
    spend, raw = served.feature("spend"), served.feature("raw")
    Error = type[MlforgeError]
    definitions: list[tuple[Error, str, dict[str, Any]]] = [
        (DefinitionError, "service name 'a/b' is not allowed", {"name": "a/b"}),
        (DefinitionError, "features is an empty list", {"features": []}),
        (DefinitionError, "3 is not a feature", {"features": [3]}),
        (DefinitionError, r"'x' is List\(Int64\); a request column is", {"request": {"x": pl.List(pl.Int64)}}),
        (DefinitionError, "'x' is .*; a request column is", {"request": {"x": pl.List}}),
        (DefinitionError, "'x' is 'Float64'; a request column is", {"request": {"x": "Float64"}}),
        (DefinitionError, "'x' is Decimal.*; a request column is", {"request": {"x": pl.Decimal(10, 2)}}),
        (DefinitionError, "'x' is Datetime.*; a request column is", {"request": {"x": pl.Datetime("us", "Europe/Rome")}}),
        (DefinitionError, "'user_id' of the service has the name of a key", {"request": {"user_id": pl.Int64}}),
        (DefinitionError, "'t' is the instant", {"request": {"t": pl.Int64}}),
        (DefinitionError, "two columns would be 'x'", {"request": {"x": pl.Int64}, "derive": {"x": "1"}}),
        (DefinitionError, f"two columns would be 'spend__{SUM}'", {"features": [spend, spend[SUM]]}),
        (ExpressionError, "no column 'spend__amont'", {"derive": {"x": "spend__amont + 1"}}),
        (ExpressionError, "derive 'x'", {"derive": {"x": "1 +"}}),
        (DefinitionError, "defaults: no column 'amont'; there are spend__", {"defaults": {"amont": 1}}),
        (DefinitionError, "defaults: no column 'user_id'", {"defaults": {SUM: 1, f"spend__{SUM}": 1, "user_id": 1}}),
        (DefinitionError, "max_age", {"max_age": "soon"}),
        (DefinitionError, "owner must be a text", {"owner": 3}),
        (DefinitionError, "s: defaults: 'x' must be a number, a text", {"defaults": {"x": pl.lit(0)}}),
        (DefinitionError, "s: defaults: 'x' must be a number, a text", {"defaults": {"x": None}}),
        (DefinitionError, "s: defaults: 'x' must be a number, a text", {"defaults": {"x": timedelta(1)}}),
        (DefinitionError, "s: defaults: 'x' must be a number, a text", {"defaults": {"x": float("nan")}}),
    ]  # fmt: skip
    for error, message, changes in definitions:
        with pytest.raises(error, match=message):
            Service(**{"name": "s", "features": [spend], **changes})
    with pytest.raises(DefinitionError, match=r"two services are named 'S'"):
        redefined(served, Service("s", ["spend"]), Service("S", ["raw"]))
    with pytest.raises(
        DefinitionError, match=r"service s takes the feature 'spnd'.*did you mean 'spend'"
    ):
        redefined(served, Service("s", ["spnd"]))
    with pytest.raises(ExpressionError, match="no column 'spend__amont'"):
        redefined(served, Service("s", ["spend"], derive={"x": "spend__amont + 1"}))
    with pytest.raises(DefinitionError, match="s: defaults: no column 'amont'"):
        redefined(served, Service("s", ["spend"], defaults={"amont": 1}))
    with pytest.raises(DefinitionError, match="must be a Service, not 'spend'"):
        redefined(served, "spend")
    assert list(redefined(served, Service("s", ["spend", raw])).services) == ["s"]

    requests: list[tuple[Error, str, Service, dict[str, Any]]] = [
        (RetrievalError, "no column 'amont'", Service("s", ["raw"], defaults={"amont": 1}), {}),
        (RetrievalError, "default of 'raw__amount' is Float64, not 'a'", Service("s", ["raw"], defaults={"amount": "a"}), {}),
        (RetrievalError, "default of 'days__amount__sum__2d' is Float64, not True", Service("s", ["days"], defaults={"amount__sum__2d": True}), {}),
        (RetrievalError, "which is null", Service("s", ["raw"], defaults={"amount": float("inf")}), {}),
        (ExpressionError, "no column 'raw__amont'", Service("s", ["raw"], derive={"x": "raw__amont"}), {}),
        (RetrievalError, "'raw__half' is a column of a feature", Service("s", ["raw"], derive={"raw__half": "1"}), {}),
    ]  # fmt: skip
    for error, message, service, options in requests:
        with pytest.raises(error, match=message):
            get_online_features(service, USERS, online, **options)
        with pytest.raises(error, match=message):
            get_training_data(spine_of(USERS), service, served.store)

    priced = Service(
        "s",
        [raw],
        request={"price": pl.Int16},
        derive={"x": "price + 1", "y": "days(t - '2026-01-01')"},
    )
    for message, request in [
        (r"request is None; give request=\[\{'price': \.\.\.\}", None),
        ("1 rows for 3 entities", [{"price": 1}]),
        ("request row", [{"cost": 1}] * 3),
        ("request 'price' is Int16, not '1'", [{"price": "1"}] * 3),
        ("request 'price' is Int16, not True", [{"price": True}] * 3),
        ("request 'price' is Int16, which does not hold 40000", [{"price": 40_000}] * 3),
    ]:
        with pytest.raises(RetrievalError, match=message):
            get_online_features(priced, USERS, online, request=request)
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=10)))  # an instant before the year 1
    timed = Service("timed", features=priced.features, request={"when": pl.Datetime("us", "UTC")}, derive={"x": "hours(t - when)"})  # fmt: skip
    with pytest.raises(RetrievalError, match=r"request 'when' is .*, which does not hold"):
        get_online_features(timed, USERS, online, request=[{"when": early}] * 3)
    with pytest.raises(RetrievalError, match="request= goes with a Service"):
        get_online_features(["raw"], USERS, online, request=[])
    keyed = Service("s", ["raw"], request={"user_id": pl.Int16})
    with pytest.raises(RetrievalError, match="there is a key 'user_id'"):
        get_online_features(keyed, USERS[:1], online, request=[{"user_id": 1}])
    for message, spine in [
        ("the spine has no column 'price', which requests bring", spine_of(USERS)),
        ("the spine's column 'price' is String, the request's is Int16", spine_of(USERS, price=pl.lit("1"))),
        ("the spine's column 'price' is Int64, the request's is Int16", spine_of(USERS, price=pl.lit(40_000, dtype=pl.Int64))),
        ("the spine has a column 'x', which s derives, too", spine_of(USERS, price=1, x=1)),
    ]:  # fmt: skip
        with pytest.raises(RetrievalError, match=message):
            get_training_data(spine, priced, served.store)
    long = Service("long", [raw], request={"price": pl.Int64})
    with pytest.raises(RetrievalError, match="'price' is Float64, the request's is Int64"):
        get_training_data(spine_of(USERS, price=2.0**53), long, served.store)
    last = Service("s", ["last"], derive={"x": "days(t - '2026-01-01')"})
    two_times = spine_of(USERS, other=pl.lit(NOW))
    with pytest.raises(
        RetrievalError, match=r"read t, and the spine's time column is not plain \(at, other\)"
    ):
        get_training_data(two_times, last, served.store)
    assert (
        get_training_data(two_times, last, served.store, timestamp="at")["x"].to_list() == [5.0] * 3
    )


def redefined(defs: Definitions, *services: Any) -> Definitions:
    return Definitions(defs.store, defs.features.values(), root=defs.root, services=services)


def test_a_key_that_features_hold_in_several_dtypes_is_the_first_feature_s_in_both(
    project: Project, online: RedisStore
) -> None:
    spend, texts = project.define(), project.define(as_texts, name="texts")
    served = project.definitions(spend, texts, online_store=online)
    with clock.fixed(to_us(NOW)):
        served.build(online=True)
    service = Service(
        "both",
        [spend["amount__sum__7d"], texts["amount__count__7d"]],
        derive={"next": "user_id + 1"},
    )
    spine = spine_of([{"user_id": 1}], user_id=pl.Series([1]))
    trained = get_training_data(spine, service, project.store)
    [answer] = get_online_features(service, [{"user_id": 1}], online)
    assert answer["next"] == trained["next"].item() == 2
    for features in ([spend, texts], [texts, spend]):
        with pytest.raises(RetrievalError, match="'01' is not a whole number"):
            get_training_data(spine.with_columns(user_id=pl.lit("01")), features, project.store)
        with pytest.raises(RetrievalError, match="'01' is not a whole number"):
            get_online_features(features, [{"user_id": "01"}], online)

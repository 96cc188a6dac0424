"""Arguments of the wrong kind: each is one error that names the argument and says what would work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import mlforge.validators as v
from mlforge import Definitions, Service, feature, get_online_features, get_training_data
from mlforge.errors import ColumnNotFound, DefinitionError, MlforgeError, near_names
from mlforge.metrics import Rolling, ToDate
from mlforge.online import RedisStore
from mlforge.store import LocalStore


def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df


class Hostile:
    """A value that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


WRONG: dict[str, Any] = {
    "None": None, "int": 1, "float": 1.5, "bool": True, "bytes": b"x", "object": object(),
    "hostile": Hostile(), "dict": {"a": 1}, "list of None": [None], "list of int": [1],
    "list of bytes": [b"x"], "list of list": [[]], "mixed": ("a", 1), "function": spend,
    "class": Rolling, "empty": "", "list of empty": [""], "series": pl.Series([1]),
    "array": np.array([1]), "path": Path("x"), "timedelta": timedelta(1),
}  # fmt: skip
RIGHT = {
    "keys": set(),
    "source": {"path"},
    "timestamp": {"None"},
    "interval": {"None", "timedelta"},
    "metrics": {"None"},
    "validators": {"None"},
    "tags": {"None"},
    "description": {"None", "empty"},
    "engine": {"None"},
    "incremental": {"None", "bool"},
    "online_clock": set(),
    "name": {"None"},
    "owner": {"None", "empty"},
    "columns": {"None"},
}
DEFINITIONS = {
    "store": set(),
    "features": set(),
    "online_store": {"None"},
    "engine": set(),
    "name": {"None"},
    "root": {"None", "path", "empty"},
    "hold_above": {"int"},
    "max_file_memory": {"int"},
    "memory_limit": set(),
    "resident_memory": {"int"},
    "follow_links": {"bool"},
    "partial": {"bool"},
}


def wrong(right: dict[str, set[str]]) -> list[Any]:
    return [
        pytest.param(argument, value, id=f"{argument}: {kind}")
        for argument, kinds in right.items()
        for kind, value in WRONG.items()
        if kind not in kinds
    ]


def defined(**arguments: Any) -> Any:
    metrics = [Rolling("7d", {"amount": "sum"})]
    usual = {"keys": ["user_id"], "source": "in/", "timestamp": "at", "metrics": metrics}
    return feature(**{**usual, **arguments})(spend)


@pytest.mark.parametrize(("argument", "value"), wrong(RIGHT))
def test_an_argument_of_a_feature_of_the_wrong_kind_is_a_definition_error(argument, value):
    with pytest.raises(DefinitionError, match=argument):
        defined(**{argument: value})


def test_none_stands_for_what_is_left_out() -> None:
    plain = defined(metrics=None, tags=None, validators=None, derive=None, defaults=None)
    assert plain.spec == defined(metrics=[]).spec
    assert plain.tags == ()


def test_a_description_of_a_column_that_there_cannot_be_is_refused() -> None:
    near = r"spend: columns: no column 'amount__sum__7'; did you mean 'amount__sum__7d'"
    with pytest.raises(DefinitionError, match=near):
        defined(columns={"amount__sum__7": "spent in a week"})
    with pytest.raises(DefinitionError, match="columns: 'at' must be a text, not ''"):
        defined(columns={"at": ""})
    untimed = defined(columns={"city": "town"}, metrics=[], timestamp=None)
    assert untimed.column_descriptions == {"city": "town"}


@pytest.mark.parametrize(("argument", "value"), wrong(DEFINITIONS))
def test_an_argument_of_definitions_of_the_wrong_kind_is_a_definition_error(argument, value):
    with pytest.raises(DefinitionError, match=f"Definitions.*{argument.removesuffix('s')}"):
        Definitions(**{"store": LocalStore("/store"), "features": [], argument: value})


@pytest.mark.parametrize(
    ("argument", "value"),
    wrong(
        {
            "windows": {"timedelta"},
            "aggregations": set(),
            "closed": {"None"},
            "offset": {"None", "timedelta"},
        }
    ),
)
def test_an_argument_of_rolling_of_the_wrong_kind_is_a_definition_error(argument, value):
    with pytest.raises(DefinitionError, match=r"Rolling|window|offset"):
        Rolling(**{"windows": "7d", "aggregations": {"amount": "sum"}, argument: value})


@pytest.mark.parametrize("names", [v for k, v in WRONG.items()], ids=list(WRONG))
def test_aggregations_of_the_wrong_kind_are_a_definition_error(names):
    with pytest.raises(DefinitionError, match="Rolling"):
        Rolling("7d", {"amount": names})


@pytest.mark.parametrize("rules", [value for kind, value in WRONG.items()], ids=list(WRONG))
def test_rules_of_the_wrong_kind_are_a_definition_error(rules):
    with pytest.raises(DefinitionError, match="validator"):
        defined(validators={"amount": rules})


@pytest.mark.parametrize(
    ("kind", "arguments", "says"),
    [
        ("tags", {"tags": 5}, r"spend: tags must be a list, not 5; write tags="),
        ("keys", {"keys": 5}, r"spend: keys must be a list, not 5; write keys="),
        ("source", {"source": []}, "an empty list"),
        ("source", {"source": ["a/", None]}, "each of spend: source must be a text, not None"),
        ("source", {"source": ["a/", "a/"]}, "'a/' twice"),
        ("validators", {"validators": {"amount": v.not_null}}, "called: not_null"),
    ],
)
def test_an_error_says_what_was_given_and_what_would_work(kind, arguments, says):
    with pytest.raises(DefinitionError, match=says):
        defined(**arguments)


def test_a_function_that_one_frame_cannot_be_given_to_is_refused():
    for function in (lambda: None, lambda df, other: df, lambda *, df: df):
        with pytest.raises(DefinitionError, match="called with one frame"):
            feature(keys=["k"], source="in/", name="f")(function)


def test_sets_are_taken_in_one_order_in_every_process():
    tags = {f"tag-{i}" for i in range(50)}
    assert defined(tags=tags).tags == tuple(sorted(tags))
    assert v.is_in(tags).arguments == (tuple(sorted(tags)),)
    names = {"sum", "mean", "max"}
    assert Rolling("7d", {"amount": names}).aggregations == (("amount", ("max", "mean", "sum")),)


@pytest.mark.parametrize(
    ("argument", "value"),
    wrong({"periods": set(), "aggregations": set(), "closed": {"None"}, "where": {"None"}}),
)
def test_an_argument_of_to_date_of_the_wrong_kind_is_a_definition_error(argument, value):
    with pytest.raises(DefinitionError, match="ToDate"):
        ToDate(**{"periods": "1mo", "aggregations": {"amount": "sum"}, argument: value})


@pytest.mark.parametrize("windows", [pl.DataFrame({"a": [1]}), [pl.Series([1])], [np.array([1])]])
def test_windows_that_compare_by_element_are_a_definition_error(windows):
    with pytest.raises(DefinitionError, match="window"):
        Rolling(windows, {"amount": "sum"})


@pytest.mark.parametrize(("argument", "value"), wrong({"path": {"path"}, "packing": {"None"}}))
def test_an_argument_of_a_local_store_of_the_wrong_kind_is_a_definition_error(argument, value):
    with pytest.raises(DefinitionError, match=f"LocalStore: {argument}"):
        LocalStore(**{"path": "store", argument: value})


REDIS = {
    "host": set(),
    "port": {"int"},
    "db": {"int"},
    "password": {"None", "empty"},
    "username": {"None", "empty"},
    "ttl": {"None", "int"},
    "prefix": set(),
    "ssl": {"bool"},
    "password_file": {"None"},
    "owner": {"None"},
}


@pytest.mark.parametrize(("argument", "value"), wrong(REDIS))
def test_an_argument_of_a_redis_store_of_the_wrong_kind_is_a_definition_error(argument, value):
    with pytest.raises(DefinitionError, match=f"RedisStore: {argument}"):
        RedisStore(**{argument: value})


def test_numbers_of_a_server_may_be_texts_of_digits_as_environments_hold_them():
    assert repr(RedisStore(port="6380", db="2")) == repr(RedisStore(port=6380, db=2))
    for port in ("", "a", "6380 ", "-1", "70000", "9" * 5_000, float("inf")):
        with pytest.raises(DefinitionError, match="RedisStore: port"):
            RedisStore(port=port)


def test_a_password_of_the_wrong_kind_is_not_shown():
    with pytest.raises(DefinitionError) as refused:
        RedisStore(password=b"secret")
    assert "secret" not in str(refused.value)


SPINE = pl.DataFrame({"user_id": [1], "at": [datetime(2026, 1, 1, tzinfo=UTC)]})


@pytest.mark.parametrize(
    ("argument", "value"), wrong({"spine": set(), "features": set(), "store": set()})
)
def test_an_argument_of_training_of_the_wrong_kind_is_an_error_of_ours(argument, value):
    usual = {"spine": SPINE, "features": ["spend"], "store": LocalStore("/nowhere")}
    with pytest.raises(MlforgeError, match=argument.removesuffix("s")):
        get_training_data(**{**usual, argument: value})


@pytest.mark.parametrize(
    ("argument", "value"), wrong({"features": set(), "entities": set(), "store": set()})
)
def test_an_argument_of_an_online_read_of_the_wrong_kind_is_an_error_of_ours(argument, value):
    usual = {"features": ["spend"], "entities": [{"user_id": 1}], "store": RedisStore()}
    with pytest.raises(MlforgeError, match=r"features?|entities|store"):
        get_online_features(**{**usual, argument: value})


@pytest.mark.parametrize("name", list(WRONG.values()), ids=list(WRONG))
def test_a_feature_is_asked_for_by_its_name(name):
    definitions = Definitions(LocalStore("/store"), [defined()])
    for ask in (definitions.feature, definitions.source, definitions.push, definitions.refresh):
        with pytest.raises(DefinitionError, match=r"^no feature .*; there are spend$"):
            ask(name)


def test_what_selects_features_must_be_names():
    definitions = Definitions(LocalStore("/store"), [defined()])
    for selection in (5, [5], {"spend": 1}, b"spend"):
        with pytest.raises(DefinitionError, match="features"):
            definitions.build(features=selection)
        with pytest.raises(DefinitionError, match="tags"):
            definitions.build(tags=selection)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"online_store": RedisStore(prefix="b")}),
        ({"online_store": RedisStore()}, {"online_store": RedisStore(prefix="b")}),
        ({"online_store": RedisStore()}, {"online_store": RedisStore(ttl=60)}),
        ({"online_store": RedisStore()}, {"online_store": RedisStore(port=6380)}),
        ({"online_store": RedisStore()}, {"online_store": RedisStore(db=1)}),
        ({"online_store": RedisStore()}, {"online_store": RedisStore(ssl=True)}),
        ({"online_store": RedisStore()}, {"online_store": RedisStore(username="shop")}),
        (
            {"online_store": RedisStore(password="a")},
            {"online_store": RedisStore(password="b")},
        ),
        ({"online_store": RedisStore()}, {"online_store": RedisStore(owner="a" * 32)}),
        ({}, {"gone_after": "2h"}),
        ({}, {"publish_every": "10s"}),
        ({}, {"partial": True}),
        ({}, {"root": "data"}),
        ({"root": "data"}, {"root": "/data"}),
        ({}, {"hold_above": 0.1}),
        ({}, {"follow_links": True}),
        ({}, {"engine": "duckdb"}),
        ({}, {"store": LocalStore("/elsewhere")}),
        (
            {"features": [defined(source="s3://in/")]},
            {"features": [defined(source="s3://in/", sealed_after="2d")]},
        ),
        (
            {"services": [Service("ask", ["spend"])]},
            {"services": [Service("ask", ["spend"], log=0.5)]},
        ),
        (
            {"services": [Service("ask", ["spend"], request={"a": pl.Int64, "b": pl.Int64})]},
            {"services": [Service("ask", ["spend"], request={"b": pl.Int64, "a": pl.Int64})]},
        ),
    ],
)
def test_whatever_decides_where_work_goes_is_in_the_hash(one, other):
    usual = {"store": LocalStore("/store"), "features": [defined()]}
    assert Definitions(**{**usual, **one}).hash == Definitions(**{**usual, **one}).hash
    assert Definitions(**{**usual, **one}).hash != Definitions(**{**usual, **other}).hash


def test_a_store_that_shows_its_address_does_not_make_each_process_disagree():
    class Own(LocalStore):
        __repr__ = object.__repr__

    hashes = {Definitions(Own("/store"), [defined()]).hash for _ in range(3)}
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: feature(spend), r"@feature: too many positional arguments; write @feature\("),
        (
            lambda: feature(key=["user_id"], source="in/"),
            "unexpected keyword argument 'key'; did you mean 'keys'",
        ),
        (lambda: feature(Source="in/", keys=["user_id"]), "'Source'; did you mean 'source'"),
        (lambda: feature(keys=["user_id"]), r"missing a required argument: 'source'; write"),
        (lambda: feature(keys=["user_id"], source="in/", zzz=1), "'zzz'; there are keys, source"),
        (lambda: Rolling("7d"), "Rolling: missing a required argument: 'aggregations'; write"),
        (
            lambda: Rolling("7d", {"a": "sum"}, wher="b"),
            "unexpected keyword argument 'wher'; did you mean 'where'",
        ),
        (lambda: ToDate("1mo", {"a": "sum"}, close="left"), "'close'; did you mean 'closed'"),
    ],
)
def test_a_call_that_does_not_fit_says_which_would(call, says):
    with pytest.raises(DefinitionError, match=says):
        call()


@pytest.mark.parametrize("value", [v for k, v in WRONG.items() if k != "bool"])
@pytest.mark.parametrize("argument", ["online", "full"])
def test_a_flag_of_a_build_is_true_or_false(argument, value, tmp_path):
    definitions = Definitions(LocalStore(tmp_path / "store"), [defined()], root=tmp_path)
    with pytest.raises(DefinitionError, match=f"build: {argument} must be True or False"):
        definitions.build(**{argument: value})


CALLS = {
    "located_at": (["folder"], ()),
    "source": (["store"], ("spend",)),
    "build": (["version", "engine", "online", "full", "progress"], ()),
    "plan": (["version", "engine", "full", "progress"], ()),
    "rollback": (["name", "version"], ()),
    "refresh": (
        ["attended", "engine", "version", "full", "careful", "options", "reading"],
        ("spend",),
    ),
    "push": (["engine", "diff"], ("spend",)),
    "audit": (["share"], ("spend",)),
}


@pytest.mark.parametrize("value", [pl.DataFrame({"a": [1]}), Hostile(), 1.5, [None]])
@pytest.mark.parametrize(
    ("method", "argument"),
    [(method, name) for method, (names, _) in CALLS.items() for name in names],
)
def test_an_argument_of_a_method_of_the_wrong_kind_is_a_definition_error(
    method, argument, value, tmp_path
):
    definitions = Definitions(LocalStore(tmp_path / "store"), [defined()], root=tmp_path)
    required = {"name": "spend"} if method == "rollback" else {}
    with pytest.raises(DefinitionError, match=f"^{method}: .*{argument}"):
        getattr(definitions, method)(*CALLS[method][1], **{**required, argument: value})


@pytest.mark.parametrize(
    ("name", "names", "meant"),
    [
        ("B", ["at", "b"], ["b"]),
        ("is_Refunded", ["amount", "is_refund", "at"], ["is_refund"]),
        ("user", ["User", "USER", "x"], ["User", "USER"]),
        ("zzz", ["amount"], []),
    ],
)
def test_a_missing_column_is_told_with_near_ones_whatever_their_case(name, names, meant):
    assert near_names(name, names) == meant
    advice = f" (did you mean {' or '.join(map(repr, sorted(meant)))}?)" if meant else ""
    assert str(ColumnNotFound.among("spend", name, names)).endswith(
        f"{', '.join(sorted(names))}{advice}"
    )

"""The meaning of a column: what changes it and what does not, row by row, and what a lock says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import pytest

from mlforge import feature
from mlforge.core.lock import Lock, LockedColumn
from mlforge.core.meaning import FeatureMeaning, differences, meaning_hash
from mlforge.errors import LockMismatch, MlforgeError, RetrievalError
from mlforge.features.feature import Feature
from mlforge.metrics import Rolling

SUM, RATE = "amount__sum__7d", "rate"
FACTOR = 2


def doubled(df: pl.DataFrame) -> pl.DataFrame:
    return df.with_columns(amount=pl.col("amount") * FACTOR)


def plain(df: pl.DataFrame) -> pl.DataFrame:
    return doubled(df)


def laid_out(df: pl.DataFrame) -> pl.DataFrame:
    """A docstring, a comment, and another layout."""
    return doubled(
        df  # as it is
    )


def twice(df: pl.DataFrame) -> pl.DataFrame:
    return doubled(doubled(df))


def spend(function: Any = plain, **changes: Any) -> Feature:
    metrics = [Rolling("7d", {"amount": ["sum", "count"]})]
    settings = {
        "keys": ["user_id", "shop"],
        "source": "payments/",
        "timestamp": "at",
        "metrics": metrics,
        "derive": {RATE: "amount__sum__7d / amount__count__7d"},
        "name": "spend",
    }
    return feature(**(settings | changes))(function)


def meaning(of: Feature) -> FeatureMeaning:
    return FeatureMeaning.of(of.spec, of.code_hash)


@dataclass(frozen=True)
class Case:
    """A change of a feature, and how its sum and its rate tell of it."""

    of: Feature
    sum: tuple[str, ...] = ()
    rate: tuple[str, ...] = ()


def sums(window: str = "7d", names: Any = ("sum", "count"), **ends: Any) -> dict[str, Any]:
    return {"metrics": [Rolling(window, {"amount": list(names)}, **ends)]}


CODE = ("the function's code changed",)
ENDS = "the window's closed ends both became left"
READ = tuple(f"{ENDS} in {name}, which it reads" for name in ("amount__count__7d", SUM))
SAME: dict[str, Feature] = {
    "another layout, comments, a docstring, another name of the function": spend(laid_out),
    "another source": spend(source=["a/", "b/"]),
    "another engine": spend(engine="duckdb"),
    "tags, a description, validators": spend(tags=["x"], description="y", validators={}),
    "the clock of online values": spend(online_clock="wall"),
    "whether files are read one by one": spend(incremental=False),
    "the order of keys": spend(keys=["shop", "user_id"]),
    "the order of metrics, and more of them": spend(**sums(names=["max", "count", "sum"])),
    "a further derived column": spend(
        derive={"more": "amount__sum__7d + 1", RATE: "amount__sum__7d / amount__count__7d"}
    ),
    "how an expression is laid out": spend(derive={RATE: "(amount__sum__7d)/amount__count__7d"}),
}
OTHER: dict[str, Case] = {
    "the function's code": Case(spend(twice), CODE, CODE),
    "a key": Case(
        spend(keys=["user_id"]),
        *[("keys shop, user_id became user_id",)] * 2,
    ),
    "the timestamp": Case(spend(timestamp="seen"), *[("timestamp at became seen",)] * 2),
    "an interval": Case(
        spend(interval="1d"),
        ("interval none became 1d", ENDS),
        ("interval none became 1d", *READ),
    ),
    "the ends of a window": Case(spend(**sums(closed="left")), (ENDS,), READ),
    "an expression": Case(
        spend(derive={RATE: "amount__sum__7d / 7"}),
        (),
        ("the expression 'amount__sum__7d / amount__count__7d' became 'amount__sum__7d / 7'",),
    ),
}


@pytest.mark.parametrize("what", SAME)
def test_a_meaning_stays_with(what: str) -> None:
    before, now = meaning(spend()), meaning(SAME[what])
    for column in (SUM, RATE):
        assert differences(before.column(column), now.column(column)) == []
        assert meaning_hash(before.column(column)) == meaning_hash(now.column(column))


@pytest.mark.parametrize("what", OTHER)
def test_a_meaning_changes_with(what: str) -> None:
    before, case = meaning(spend()), OTHER[what]
    now = meaning(case.of)
    for column, words in ((SUM, case.sum), (RATE, case.rate)):
        assert tuple(differences(before.column(column), now.column(column))) == words
        same = meaning_hash(before.column(column)) == meaning_hash(now.column(column))
        assert same == (not words)


def test_helpers_and_constants_count_by_what_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    before = meaning(spend())
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert differences(before.column(SUM), meaning(spend()).column(SUM)) == [*CODE]


def test_an_interval_counts_by_its_length_and_no_metric_by_its_name_alone() -> None:
    day, hours = (meaning(spend(interval=i)) for i in ("1d", "24h"))
    assert day == hours
    bare = meaning(spend(metrics=[], derive=None))
    assert bare.column("amount") | {"column": "x", "name": "x"} == bare.column("x")
    assert FeatureMeaning.parse(day.text) == day


def lock_of(of: Feature, *columns: str) -> Lock:
    return Lock("checkout", tuple(locked(of, *columns or (SUM, RATE))), ("spend@1.0.0",), "s", 7)


def locked(of: Feature, *columns: str, dtype: str = "Float64") -> list[LockedColumn]:
    own = meaning(of)
    return [
        LockedColumn(f"spend__{name}", dtype, {"feature": "spend", **own.column(name)})
        for name in columns
    ]


def test_a_lock_of_empty_lists_holds_with_their_first_value_and_with_no_other_type() -> None:
    lock = Lock(
        "checkout", tuple(locked(spend(), SUM, dtype="List(Null)")), ("spend@1.0.0",), "s", 7
    )
    lock.check(locked(spend(), SUM, dtype="List(Int64)"))
    with pytest.raises(LockMismatch, match=r"its type List\(Null\) became Int64"):
        lock.check(locked(spend(), SUM, dtype="Int64"))


def test_a_lock_holds_with_more_columns_and_tells_what_else_changed() -> None:
    lock = lock_of(spend())
    lock.check([*locked(spend(), "amount__count__7d"), *locked(spend(laid_out), RATE, SUM)])
    with pytest.raises(LockMismatch, match=r"checkout does not hold: spend__rate: it is gone$"):
        lock.check(locked(spend(), SUM))
    with pytest.raises(LockMismatch, match="its type Float64 became Int64"):
        lock.check(locked(spend(), SUM, RATE, dtype="Int64"))
    fortnight = locked(spend(**sums("14d"), derive=None), "amount__sum__14d", "amount__count__14d")
    for now in (fortnight, fortnight[::-1]):
        words = [str(change) for change in lock.changes(now)]
        assert words == [
            "spend__amount__sum__7d: it is gone: window 7d became 14d (spend__amount__sum__14d)",
            "spend__rate: it is gone",
        ]


def test_a_lock_names_the_types_of_keys_and_one_that_was_written_before_does_not(
    tmp_path: Any,
) -> None:
    def keyed(dtype: str) -> tuple[LockedColumn, ...]:
        return tuple(replace(c, keys=(("user_id", dtype),)) for c in locked(spend(), SUM, RATE))

    before, path = lock_of(spend()), tmp_path / "features.lock"
    lock = replace(before, columns=keyed("Int64"))
    for old, now in (
        (before, keyed("String")),
        (lock, keyed("Int64")),
        (lock, keyed("UInt32")),  # as a drop may widen it
        (lock, before.columns),
    ):
        old.check(now)
    with pytest.raises(
        LockMismatch, match="spend__rate: the type of its key user_id Int64 became String"
    ):
        lock.check(keyed("String"))
    assert Lock.load(lock.save(path)) == lock
    assert all("keys" not in column for column in before.to_json()["columns"])
    for wrong in ('{"user_id": 3}', '["user_id"]', "7", "null"):
        with pytest.raises(RetrievalError, match="is no lock, or it is damaged"):
            Lock.from_text(lock.text.replace('{"user_id": "Int64"}', wrong), "it")


def test_a_lock_comes_back_from_its_file_and_a_damaged_one_is_refused(tmp_path: Any) -> None:
    lock, path = lock_of(spend()), tmp_path / "features.lock"
    assert Lock.load(lock.save(path)) == lock
    text = path.read_text()
    for wrong, message in [
        (text[:-20], "is no lock, or it is damaged"),
        ("[]", "is no lock, or it is damaged"),
        (text.replace('"window": "7d"', '"window": "9d"'), "does not fit what it is of"),
        (text.replace('"format": 1', '"format": 2'), "format 2, this mlforge knows 1: upgrade"),
        (text.replace("spend__rate", "spend__amount__sum__7d"), "names no column, or one twice"),
        (text.replace('"service": "checkout"', '"service": 3'), "are texts"),
        (text.replace('amount__count__7d"', '("', 1), "is no lock, or it is damaged"),
    ]:
        path.write_text(wrong)
        with pytest.raises(RetrievalError, match=message):
            Lock.load(path)
    with pytest.raises(RetrievalError, match=r"cannot read the lock .*'mlforge lock SERVICE'"):
        Lock.load(tmp_path / "none.lock")
    with pytest.raises(MlforgeError, match="cannot write the lock"):
        lock.save(tmp_path / "none" / "features.lock")

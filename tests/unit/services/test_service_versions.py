"""The bump that a change of a service amounts to, by what callers and readers of it must do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlforge.core.keeper import Keeper
from mlforge.core.lock import Lock, LockedColumn
from mlforge.core.values import Version
from mlforge.errors import DefinitionError, IntegrityError, UnsupportedStore
from mlforge.services.versions import ServiceVersion, next_version

SPEND = {"feature": "spend", "version": None, "columns": [], "prefix": "", "keys": {}}
PINNED = {**SPEND, "version": "1.0.0"}
SERVICE = {
    "name": "checkout",
    "max_age": "6h",
    "owner": "risk",
    "description": "",
    "features": [SPEND],
    "defaults": {},
}


def column(name: str, dtype: str = "Float64", **parts: Any) -> LockedColumn:
    meaning = {
        "feature": "spend",
        "name": name,
        "keys": ["user_id"],
        "code": "c0de",
        "window": "7d",
    }
    return LockedColumn(f"spend__{name}", dtype, {**meaning, **parts})


SUM, COUNT = column("sum"), column("count", "Int64")
AMOUNT = LockedColumn("amount", "Float64", {"request": "amount"})
LOCK = Lock("checkout", (SUM, COUNT, AMOUNT), ("spend@1.0.0",), "5707e", 17)
FIRST = ServiceVersion(Version(1, 2, 3), SERVICE, LOCK)


@pytest.mark.parametrize(
    ("columns", "changes", "version", "words"),
    [
        ((SUM, COUNT, AMOUNT), {}, None, ""),
        ((SUM, COUNT, AMOUNT), {"owner": "growth"}, "1.2.4", "another owner"),
        ((SUM, COUNT, AMOUNT), {"description": "what it is"}, "1.2.4", "another description"),
        ((COUNT, SUM, AMOUNT), {}, "1.2.4", "the order of columns"),
        (
            (SUM, COUNT, AMOUNT),
            {"features": [PINNED]},
            "1.2.4",
            "spend is read as 1.0.0, was read as it is served",
        ),
        ((SUM, COUNT, AMOUNT), {"features": [SPEND, SPEND]}, None, ""),
        ((SUM, COUNT, AMOUNT), {"defaults": {"sum": 0}}, "1.2.4", "the service's own"),
        ((SUM, COUNT, AMOUNT), {"max_age": None}, "1.3.0", "max_age 6h became None"),
        ((SUM, column("mean"), COUNT, AMOUNT), {"owner": ""}, "1.3.0", "spend__mean came"),
        ((SUM, AMOUNT), {}, "2.0.0", "spend__count: it is gone"),
        ((SUM, column("count"), AMOUNT), {}, "2.0.0", "its type Int64 became Float64"),
        ((column("sum", window="14d"), COUNT, AMOUNT), {}, "2.0.0", "window 7d became 14d"),
        ((column("sum", code="0ther"), COUNT, AMOUNT), {}, "2.0.0", "the function's code changed"),
        ((column("sum", default=0.0), COUNT, AMOUNT), {}, "2.0.0", "the value in place of null"),
        ((SUM, COUNT), {}, "2.0.0", "amount: it is gone"),
        (
            (SUM, COUNT, AMOUNT, LockedColumn("shop", "String", {"request": "shop"})),
            {},
            "2.0.0",
            "shop: requests must say it",
        ),
        (
            (SUM, COUNT, AMOUNT, column("max", keys=["user_id", "shop"])),
            {},
            "2.0.0",
            "entities must say shop",
        ),
    ],
)
def test_the_bump_follows_from_columns_and_from_what_requests_must_say(
    columns: tuple[LockedColumn, ...], changes: dict[str, Any], version: str | None, words: str
) -> None:
    lock = replace(LOCK, columns=columns, versions=("spend@9.0.0",), created_at=18)
    following = next_version(FIRST, {**SERVICE, **changes}, lock)
    if version is None:
        assert following is None
        return
    assert following is not None
    assert str(following.version) == version
    assert words in "; ".join(following.details)
    again = next_version(following, {**SERVICE, **changes}, lock)
    assert again is None


def test_a_document_comes_back_and_a_damaged_one_is_told() -> None:
    first = next_version(None, SERVICE, LOCK)
    assert first == ServiceVersion(Version(1, 0, 0), SERVICE, LOCK)
    document = FIRST.to_json()
    assert ServiceVersion.from_json(document, "it") == FIRST
    with pytest.raises(UnsupportedStore, match="it has format 2"):
        ServiceVersion.from_json({**document, "format": 2}, "it")
    damaged = [
        None,
        [],
        {},
        *({k: v for k, v in document.items() if k != gone} for gone in document),
    ]
    for each in [*damaged, {**document, "version": "1"}, {**document, "lock": {}}]:
        if isinstance(each, dict) and each.keys() == document.keys() - {"format"}:
            continue
        with pytest.raises(IntegrityError, match="it is damaged"):
            ServiceVersion.from_json(each, "it")


def test_versions_of_definitions_that_share_a_store_are_theirs_alone() -> None:
    shop, bank, alone = Keeper("shop", True), Keeper("bank", True), Keeper("bank", False)
    first = next_version(None, SERVICE, LOCK, shop)
    assert first is not None
    assert ServiceVersion.from_json(first.to_json(), "it") == first
    # The same: nothing to undo.
    assert next_version(first, SERVICE, LOCK, bank, by_others=True) is None
    other = {**SERVICE, "owner": "growth"}
    for keeper in (bank, alone):
        with pytest.raises(DefinitionError, match=r"'shop'.*another service 'checkout'.*'bank'"):
            next_version(first, other, LOCK, keeper, by_others=True)
    adopted = next_version(first, SERVICE, LOCK, alone, by_others=True, adopts=True)
    assert adopted is not None
    assert (str(adopted.version), adopted.keeper) == ("1.0.1", "bank")
    assert next_version(adopted, SERVICE, LOCK, bank, adopts=True) is None
    let_go = next_version(first, SERVICE, LOCK, bank)
    assert let_go is not None
    assert (let_go.bump, let_go.details) == ("patch", ("kept by 'bank', was kept by 'shop'",))
    assert next_version(first, SERVICE, LOCK, alone) is None
    by_itself = next_version(first, other, LOCK, alone)
    still = next_version(first, other, LOCK, Keeper("shop", False))
    assert by_itself is not None
    assert still is not None
    taken = next_version(by_itself, SERVICE, LOCK, bank)  # of a store that nobody shared
    assert taken is not None
    assert (by_itself.keeper, still.keeper, taken.keeper) == ("", "shop", "bank")

"""The versions of services that stay, whatever the rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mlforge.core.lock import Lock, LockedColumn
from mlforge.core.values import Duration, Version
from mlforge.maintenance.retention import Retention, removable
from mlforge.maintenance.service_versions import needed_versions
from mlforge.services.versions import ServiceVersion

SUM, COUNT, MEAN = (
    LockedColumn(f"spend__{name}", "Float64", {"feature": "spend", "name": name})
    for name in ("sum", "count", "mean")
)


def lock(*columns: LockedColumn, service: str = "checkout") -> Lock:
    return Lock(service, columns, ("spend@1.0.0",), "5707e", 17)


KEPT = [
    ServiceVersion(Version.parse(version), {"name": "checkout"}, lock(*columns))
    for version, columns in {
        "1.0.0": (SUM,),
        "1.0.1": (SUM,),
        "1.1.0": (SUM, COUNT),
        "1.1.1": (SUM, COUNT),
        "2.0.0": (COUNT,),
        "2.0.1": (COUNT,),
        "2.1.0": (COUNT, MEAN),
    }.items()
]


@pytest.mark.parametrize(
    ("locks", "stay"),
    [
        ([], ["1.1.1", "2.1.0"]),
        ([lock(SUM)], ["1.1.1", "2.1.0"]),
        ([lock(COUNT), lock(SUM, COUNT)], ["1.1.1", "2.1.0"]),
        ([lock(SUM, replace(COUNT, dtype="Int64"))], ["1.1.1", "2.1.0"]),
        ([lock(SUM, service="refunds")], ["1.1.1", "2.1.0"]),
    ],
)
def test_the_newest_of_each_major_stays(locks: Sequence[Lock], stay: list[str]) -> None:
    assert sorted(map(str, needed_versions(KEPT, locks))) == stay


def test_a_registered_lock_keeps_the_newest_version_that_has_its_columns() -> None:
    kept = [
        *KEPT,
        replace(KEPT[-1], version=Version(2, 2, 0), lock=lock(replace(MEAN, dtype="Int64"))),
    ]
    assert sorted(map(str, needed_versions(kept, [lock(COUNT, MEAN)]))) == [
        "1.1.1",
        "2.1.0",
        "2.2.0",
    ]
    needed = needed_versions(kept, [lock(COUNT, MEAN)])
    created = {each.version: each.lock.created_at for each in kept}
    gone = removable(created, None, needed, Retention(newest=1), 18)
    assert list(map(str, gone)) == ["1.0.0", "1.0.1", "1.1.0", "2.0.0", "2.0.1"]


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        (Retention(patches=2), ["1.0.0", "1.1.0", "1.1.1"]),
        (Retention(newest=2), ["1.0.0", "1.0.1", "1.1.0", "1.1.1"]),
        (Retention(newest=0), ["1.0.0", "1.0.1", "1.1.0", "1.1.1", "1.1.2"]),
        (Retention(older_than=Duration(3, "3us")), ["1.0.0", "1.0.1", "1.1.0"]),
        (Retention(newest=4, older_than=Duration(5, "5us")), ["1.0.0"]),
        (Retention(), ["1.0.0", "1.0.1", "1.1.0", "1.1.1", "1.1.2"]),
    ],
)
def test_a_version_goes_if_every_part_of_the_rule_allows_it(
    rule: Retention, gone: list[str]
) -> None:
    made = ["1.0.0", "1.0.1", "1.1.0", "1.1.1", "1.1.2", "1.1.3"]
    created = {Version.parse(version): number for number, version in enumerate(made)}
    assert list(map(str, removable(created, None, (), rule, 5))) == gone

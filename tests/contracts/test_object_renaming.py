"""A feature in a bucket that was renamed: what it costs, what the caches of machines make of it, and what is left when it is gone."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mlforge import Definitions
from mlforge.core import failpoints
from mlforge.errors import BuildError, FeatureNotFound
from mlforge.maintenance.operations import verify
from mlforge.metrics import Rolling
from mlforge.registry.forgetting import entities_of, forget
from mlforge.registry.renaming import rename
from mlforge.store import ObjectStore
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, rows
from tests.support.workers import eventually

ANN = 7_203_984_651


class Machine(Project):
    """A machine that works on a bucket."""

    def __init__(self, root: Path, stored: dict[str, tuple[bytes, int, int]], name: str) -> None:
        self.root, self.engine, self.events = root, "polars", root / "events"
        self.objects = MemoryObjects(stored)
        self.store = ObjectStore("s3://memory/store", root / name, objects=self.objects)

    @property
    def deeds(self) -> list[str]:
        """What was asked of the server since the last look at it."""
        deeds = [deed for deed, *_ in self.objects.requests]
        self.objects.requests.clear()
        return deeds


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Machine, Machine]:
    """Two machines that have refreshed and read a feature of sixty files."""
    (tmp_path / "events").mkdir()
    stored: dict[str, tuple[bytes, int, int]] = {}
    first, second = (Machine(tmp_path, stored, name) for name in ("first", "second"))
    for number in range(60):
        first.drop(str(number), rows((number % 7, number / 10, 1.0)))
    first.build()
    first.drop("61", rows((1, 20.0, 2.0)))
    second.build()
    for each in (first, second):
        each.store.read("spend")
        assert each.deeds
    return first, second


def test_a_rename_costs_as_little_as_a_drop_however_many_files_there_are(
    machines: tuple[Machine, Machine],
) -> None:
    first, _ = machines
    first.store.rename("spend", "outlay")
    deeds = first.deeds
    written = [deed for deed in deeds if deed in ("create", "replace", "put", "delete")]
    assert len(written) == 5
    assert len(deeds) <= 25
    assert "download" not in deeds


def test_a_drop_costs_no_more_once_a_feature_was_renamed(
    machines: tuple[Machine, Machine],
) -> None:
    first, second = machines
    first.store.rename("spend", "outlay")
    for machine, day in ((first, 21.0), (second, 22.0)):
        definitions = machine.definitions(machine.define(name="outlay"))
        definitions.refresh("outlay")  # it learns where the feature lies
        machine.drop(str(day), rows((1, day, 2.0)))
        machine.objects.requests.clear()
        assert definitions.refresh("outlay").bump == "patch"
        deeds = machine.deeds
        assert len(deeds) <= 9, deeds

        def is_at_rest(machine: Machine = machine, definitions: Definitions = definitions) -> bool:
            machine.objects.requests.clear()
            assert definitions.refresh("outlay").reason == "unchanged"
            return len(machine.deeds) <= 2

        eventually(is_at_rest)  # the state of a young file is written until it has settled


def test_a_feature_of_a_feature_asks_for_renames_only_where_its_source_has_another_name(
    machines: tuple[Machine, Machine],
) -> None:
    first, _ = machines

    def both(machine: Machine, name: str) -> Definitions:
        source = machine.define(name=name)
        peaks = [Rolling("7d", {"amount__sum__7d": ["max"]})]
        return machine.definitions(
            source, machine.define(name="peaks", source=source, metrics=peaks, function=same)
        )

    def asked(machine: Machine) -> bool:
        return any(key == "_metadata/renamed.json" for _, key, *_ in machine.objects.requests)

    both(first, "spend").build()
    for name, is_asked in (("spend", False), ("outlay", True)):
        if is_asked:
            first.store.rename("spend", name)
        for machine in machines:
            definitions = both(machine, name)
            definitions.build()
            machine.objects.requests.clear()
            assert definitions.refresh("peaks").reason == "unchanged"
            assert asked(machine) == is_asked
            assert machine.store.latest("peaks").source == f"feature:{name}@1.0.1"  # type: ignore[union-attr]


def same(df: pl.DataFrame) -> pl.DataFrame:
    return df


def test_another_machine_reads_on_from_its_cache_under_the_new_name_and_is_told_of_the_old_one(
    machines: tuple[Machine, Machine],
) -> None:
    first, second = machines
    expected = second.store.read("spend")
    first.store.rename("spend", "outlay")
    second.objects.requests.clear()
    assert second.store.read("outlay").equals(expected)
    assert "download" not in second.deeds
    with pytest.raises(FeatureNotFound, match="spend was renamed to outlay"):
        second.store.read("spend")
    with pytest.raises(BuildError, match="spend was renamed to outlay"):
        second.build()
    assert second.build(second.define(name="outlay")).reason == "unchanged"
    second.drop("62", rows((1, 23.0, 2.0)))
    assert second.build(second.define(name="outlay")).mode == "incremental"
    assert first.store.read("outlay").equals(second.store.read("outlay"))


def test_no_cache_takes_the_next_feature_of_a_name_for_the_one_that_had_it(
    machines: tuple[Machine, Machine],
) -> None:
    first, second = machines
    first.store.rename("spend", "outlay")
    assert second.store.read("outlay").height == 61
    with first.store.lock("outlay"):
        first.store.erase("outlay")
    for path in first.events.glob("*.parquet"):
        path.unlink()
    first.drop("0", rows((1, 1.0, 5.0)))
    first.build()
    first.drop("1", rows((2, 1.0, 5.0)))
    first.build(first.define(name="outlay"))
    for store in (first.store, second.store):
        assert (store.read("spend").height, store.read("outlay").height) == (1, 2)
        assert verify(store, ["spend", "outlay"]) == []
        assert store.read("outlay", "1.0.0").height == 2


def held(machine: Machine, value: int) -> list[str]:
    """Keys of the objects that hold a value."""
    wanted = value.to_bytes(8, "little")
    return [key for key, (data, *_) in machine.objects.stored.items() if wanted in data]


def test_every_byte_of_an_entity_goes_under_all_names_that_its_feature_had(
    machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = machines
    first.drop("ann", rows((ANN, 24.0, 1.0)))
    failpoints.arm("publish.staged", _die)
    try:
        # Builds of names that a rename makes room of, and is given meanwhile.
        for name in (
            "total",
            "outlay",
        ):
            with pytest.raises(KeyboardInterrupt):
                second.build(second.define(name=name))
    finally:
        failpoints.disarm()
    first.build()
    left = dict(first.objects.stored)
    assert len({key.partition("/")[0] for key in held(first, ANN)}) == 3
    for before, after in (("spend", "outlay"), ("outlay", "total")):
        rename(first.definitions(first.define(name=after)), before, after)
    assert {key.partition("/")[0] for key in held(first, ANN)} == {"spend"}
    # What a publisher of another life of the name still uploads behind a rename.
    late = {key: value for key, value in left.items() if key.startswith(("total/_", "outlay/_p"))}
    first.objects.stored.update({k: v for k, v in late.items() if not k.endswith("_latest.json")})
    assert len({key.partition("/")[0] for key in held(first, ANN)}) == 3
    definitions = first.definitions(first.define(name="total"))
    outcome = forget(definitions, entities_of(first.store, [f"user_id={ANN}"]))
    assert outcome.failures == {}
    assert list(outcome.features) == ["total"]
    assert held(first, ANN) == []
    assert ANN not in second.store.read("total")["user_id"]
    with first.store.lock("total"):
        first.store.erase("total")
    names = ("spend/", "outlay/", "total/")
    rest = [key for key in first.objects.stored if key.startswith(names)]
    assert {key.partition("/")[2] for key in rest} <= {"_latest.json"}


def _die() -> None:
    raise KeyboardInterrupt

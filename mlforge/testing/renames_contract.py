"""The contract of another name for a feature; a store that renames nothing refuses it and keeps no renames."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from mlforge.core.values import Version
from mlforge.errors import FeatureNotFound, StoreError, UnsupportedStore
from mlforge.store import Books, FileState, FileStateMap, Store
from mlforge.testing.records_contract import lock_of
from mlforge.testing.store_values import FIRST, SECOND, StoreFixtures, publish

THIRD = Version(1, 0, 2)


class RenamesContract(StoreFixtures):
    """A renamed feature is whole under its new name for every machine, and its old one is told of that."""

    @pytest.fixture
    def renaming(self, store: Store) -> Store:
        """A store of two features, which renames one of them."""
        publish(store, FIRST, 7, name="other")
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2)
        try:
            store.rename("other", "another")
        except UnsupportedStore:
            assert store.features() == ["other", "spend"]
            assert not store.renames()
            pytest.skip("the store renames nothing, and says so")
        return store

    def test_a_renamed_feature_is_whole_for_every_machine(self, renaming: Store) -> None:
        before, states = renaming.pointer("spend"), FileStateMap(a=FileState(1, 2, 3, 4, "a1"))
        with renaming.lock("spend"):
            renaming.write_books("spend", Books(pins=("1.0.0",), description="what they spend"))
            renaming.write_file_states("spend", states)
        renaming.register_lock("fraud", lock_of(renaming.resolve("spend")))
        elsewhere = self.again(renaming)
        assert elsewhere.read("spend").height == 2
        renaming.rename("spend", "outlay")
        renaming.rename("spend", "outlay")  # done already
        for opened in (renaming, self.beside(renaming), elsewhere, self.again(renaming)):
            assert opened.features() == sorted(opened.index()) == ["another", "outlay"]
            assert opened.renames().formerly("outlay") == ("spend",)
            assert opened.pointer("outlay") == before
            assert [str(each.version) for each in opened.summaries("outlay")] == ["1.0.0", "1.0.1"]
            assert opened.resolve("outlay", "1.0.0").name == "outlay"
            assert opened.read("outlay").equals(
                self.read_location(opened.location("outlay", SECOND))
            )
            assert opened.books("outlay").pins == ("1.0.0",)
            assert opened.file_states("outlay") == states
            assert opened.locks()["fraud"].features == ("outlay",)
            assert opened.check_manifest(opened.resolve("outlay")) == []
            assert (opened.versions("spend"), opened.pointer("spend")) == ([], None)
            asks: list[Callable[[], Any]] = [
                partial(opened.read, "spend"),
                partial(opened.list_versions, "spend"),
                opened.lock("spend").__enter__,
            ]
            for ask in asks:
                with pytest.raises(FeatureNotFound, match="spend was renamed to outlay"):
                    ask()

    def test_work_goes_on_under_the_new_name_and_under_the_old_one_again(
        self, renaming: Store
    ) -> None:
        renaming.rename("spend", "outlay")
        publish(self.again(renaming), THIRD, 1, 2, 3, name="outlay")
        assert renaming.read("outlay").height == 3
        renaming.rename("outlay", "total")
        renaming.rename("total", "outlay")
        with renaming.lock("outlay"):
            renaming.remove("outlay", FIRST)
        renaming.rename("outlay", "spend")
        elsewhere = self.again(renaming)
        assert elsewhere.list_versions("spend") == ["1.0.1", "1.0.2"]
        assert elsewhere.renames().formerly("spend") == ("outlay", "total")
        publish(elsewhere, Version(1, 0, 3), 1, name="spend")
        assert renaming.read("spend").height == 1
        assert renaming.read("spend", "1.0.1").height == 2

    def test_names_that_another_feature_has_or_had_are_refused_until_it_is_erased(
        self, renaming: Store
    ) -> None:
        renaming.rename("spend", "outlay")
        for before, after in (("another", "outlay"), ("another", "spend"), ("outlay", "other")):
            with pytest.raises(StoreError, match=f"{after} is taken"):
                renaming.rename(before, after)
        with pytest.raises(FeatureNotFound):
            renaming.rename("nobody", "somebody")
        with pytest.raises(StoreError):
            renaming.rename("outlay", "../x")
        with renaming.lock("outlay"):
            renaming.erase("outlay")
        assert [each.after for each in renaming.renames().done] == ["another"]
        elsewhere = self.again(renaming)
        publish(elsewhere, FIRST, 4, 5, 6, name="spend")
        publish(elsewhere, FIRST, 4, name="outlay")
        for opened in (renaming, elsewhere):
            assert opened.features() == ["another", "outlay", "spend"]
            assert opened.read("spend").height == 3
            assert opened.read("outlay").height == 1
            assert opened.read("another").height == 1

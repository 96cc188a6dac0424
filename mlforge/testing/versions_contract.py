"""The contract of versions in an offline store: what is published, served and removed."""

from __future__ import annotations

import pytest

from mlforge.core.values import Version
from mlforge.errors import (
    ColumnNotFound,
    FeatureNotFound,
    StoreError,
    VersionInUse,
    VersionNotFound,
)
from mlforge.store import Books, Pointer, Store
from mlforge.store.file_tasks import PartialWrite
from mlforge.testing.store_values import (
    EVENTS,
    FIRST,
    SECOND,
    THIRD,
    StoreFixtures,
    events,
    in_full,
    partial_of,
    publish,
    version_of,
)


class VersionsContract(StoreFixtures):
    """Versions are whole, immutable and found again."""

    # Versions

    def test_an_empty_store_has_nothing_and_says_so(self, store: Store) -> None:
        assert store.features() == []
        assert store.versions("spend") == []
        assert store.pointer("spend") is None
        assert store.latest("spend") is None
        assert store.partials("spend") == set()
        assert store.find_partial("spend", "a1") is None
        assert store.books("spend") == Books()
        assert store.file_states("spend") == {}
        assert store.index() == {}
        assert store.regenerate_index() == []
        for ask in (store.read, store.read_metadata, store.list_versions, store.resolve):
            with pytest.raises(FeatureNotFound, match=r"no feature 'spend'.*mlforge build"):
                ask("spend")

    def test_a_published_version_is_served(self, store: Store) -> None:
        assert publish(store, FIRST, 1, 2) == Pointer(FIRST, 1)
        for opened in (store, self.again(store)):
            assert opened.features() == ["spend"]
            assert opened.versions("spend") == [FIRST]
            assert opened.list_versions("spend") == ["1.0.0"]
            assert opened.pointer("spend") == Pointer(FIRST, 1)
            assert opened.read("spend").equals(events(1, 2))

    def test_a_manifest_comes_back_as_it_was_published(self, store: Store) -> None:
        rows = events(1, 2)
        with store.open("spend") as snapshot, store.transaction(snapshot) as tx:
            partials = partial_of(rows), partial_of(events(), "b2")._replace(schema=EVENTS[:2])
            store.write_partials("spend", [*map(PartialWrite, partials, (rows, events()))])
            manifest = in_full(version_of(tx, FIRST, rows, partials=partials))
            tx.commit(manifest)
        for opened in (
            store.manifest("spend", FIRST),
            store.latest("spend"),
            store.resolve("spend"),
            store.resolve("spend", "1.0.0"),
            store.read_metadata("spend", "1.0.0"),
        ):
            assert opened == manifest
        assert store.check_manifest(manifest) == []

    def test_versions_are_listed_by_number_not_by_text(self, store: Store) -> None:
        numbers = [Version(1, 0, 2), Version(1, 0, 10), Version(1, 2, 0), Version(10, 0, 0)]
        for number in numbers:
            publish(store, number, 1)
        assert store.versions("spend") == numbers
        assert store.list_versions("spend") == ["1.0.2", "1.0.10", "1.2.0", "10.0.0"]

    def test_summaries_say_what_manifests_do(self, store: Store) -> None:
        numbers = [Version(1, 0, 2), Version(1, 0, 10), Version(1, 2, 0)]
        for number in numbers:
            publish(store, number, 1)
        manifests = [store.manifest("spend", number) for number in numbers]
        assert store.summaries("spend") == [manifest.summary for manifest in manifests]
        with pytest.raises(FeatureNotFound):
            store.summaries("other")

    def test_old_versions_stay_readable(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2)
        assert store.read("spend").height == 2
        assert store.read("spend", version="1.0.0").equals(events(1))
        assert store.read("spend", "1.0.1", columns=["x", "user"]).columns == ["x", "user"]

    def test_every_publish_and_rollback_raises_the_generation(self, store: Store) -> None:
        publish(store, FIRST, 1)
        assert publish(store, SECOND, 1, 2) == Pointer(SECOND, 2)
        assert store.serve("spend", FIRST) == Pointer(FIRST, 3)
        assert store.serve("spend", FIRST) == Pointer(FIRST, 4)
        assert store.serve("spend", FIRST, at_least=3) == Pointer(FIRST, 5)
        assert store.serve("spend", FIRST, at_least=40) == Pointer(FIRST, 40)
        assert self.again(store).pointer("spend") == Pointer(FIRST, 40)
        assert store.read("spend").height == 1
        assert store.index()["spend"]["version"] == "1.0.0"
        assert publish(store, THIRD, 1) == Pointer(THIRD, 41)

    def test_what_was_rolled_back_from_is_not_served_again_by_itself(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2)
        store.serve("spend", FIRST)
        with store.lock("spend"):
            assert store.pointer("spend") == Pointer(FIRST, 3)
        assert store.pointer("spend") == Pointer(FIRST, 3)

    def test_features_do_not_know_of_each_other(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2, name="spend2")
        assert store.features() == ["spend", "spend2"]
        assert store.versions("spend") == [FIRST]
        assert store.pointer("spend2") == Pointer(SECOND, 1)

    # Errors

    def test_a_missing_version_is_named_with_those_there_are(self, store: Store) -> None:
        publish(store, FIRST, 1)
        for ask in (store.read, store.read_metadata, store.resolve):
            with pytest.raises(VersionNotFound, match=r"spend has no version 1\.0\.1.*1\.0\.0"):
                ask("spend", "1.0.1")
        with pytest.raises(VersionNotFound):
            store.serve("spend", SECOND)
        assert store.pointer("spend") == Pointer(FIRST, 1)

    def test_a_missing_feature_is_named_with_those_there_are(self, store: Store) -> None:
        publish(store, FIRST, 1)
        with pytest.raises(FeatureNotFound, match="no feature 'spent'; there are: spend"):
            store.read("spent")
        with pytest.raises(FeatureNotFound, match="no feature 'spent'"):
            store.manifest("spent", FIRST)

    @pytest.mark.parametrize("text", ["1", "1.0", "v1.0.0", "01.0.0", "1.0.0-a", "latest", ""])
    def test_text_that_is_no_version_is_refused(self, store: Store, text: str) -> None:
        publish(store, FIRST, 1)
        with pytest.raises(StoreError, match="is not a version"):
            store.read("spend", version=text)

    def test_columns_are_read_in_the_order_asked_and_unknown_ones_are_named(
        self, store: Store
    ) -> None:
        publish(store, FIRST, 1)
        assert store.read("spend", columns=["x", "at"]).columns == ["x", "at"]
        with pytest.raises(
            ColumnNotFound, match=r"spend 1\.0\.0: no column 'y'; there are at, user, x"
        ):
            store.read("spend", columns=["x", "y"])

    # Removal

    def test_a_removed_version_is_gone_and_the_others_are_not(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2)
        with store.lock("spend"):
            store.remove("spend", FIRST)
        assert store.versions("spend") == [SECOND]
        assert store.read("spend").height == 2
        with pytest.raises(VersionNotFound):
            store.read("spend", "1.0.0")
        with store.lock("spend"), pytest.raises(VersionNotFound):
            store.remove("spend", FIRST)

    def test_a_version_that_is_being_read_is_not_removed(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2)
        with store.lease("spend", FIRST), store.lock("spend"), pytest.raises(VersionInUse):
            store.remove("spend", FIRST)
        assert store.read("spend", "1.0.0").equals(events(1))
        with store.lock("spend"):
            store.remove("spend", FIRST)
        with pytest.raises(VersionNotFound), store.lease("spend", FIRST):
            pass

    def test_of_several_versions_those_that_are_being_read_stay(self, store: Store) -> None:
        versions = [FIRST, SECOND, THIRD]
        for version in (*versions, Version(2, 0, 0)):
            publish(store, version, version.patch)
        with store.lease("spend", SECOND), store.lock("spend"):
            assert store.remove_each("spend", versions) == ([FIRST, THIRD], [SECOND])
            assert store.remove_each("spend", []) == ([], [])
        assert self.again(store).versions("spend") == [SECOND, Version(2, 0, 0)]
        assert store.read("spend", "1.0.1").equals(events(1))

    def test_an_erased_feature_leaves_nothing_and_its_name_is_free(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2)
        publish(store, FIRST, 7, name="other")
        with store.lock("spend"):
            store.write_books("spend", Books(hold="because", pins=("1.0.0",)))
            store.erase("spend")
        for opened in (store, self.again(store)):
            assert opened.features() == ["other"]
            assert (opened.versions("spend"), opened.pointer("spend")) == ([], None)
            assert (opened.partials("spend"), opened.file_states("spend")) == (set(), {})
            assert opened.books("spend") == Books()
            assert list(opened.index()) == ["other"]
            assert opened.read("other").height == 1
        with store.lock("spend"):
            store.erase("spend")
        publish(store, FIRST, 1, 2, 3)
        assert self.again(store).read("spend").height == 3
        assert store.list_versions("spend") == ["1.0.0"]

    def test_a_feature_that_is_being_read_is_not_erased(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, SECOND, 1, 2)
        with (
            store.lease("spend", SECOND),
            store.lock("spend"),
            pytest.raises(VersionInUse, match=r"1\.0\.1 is being read"),
        ):
            store.erase("spend")
        assert self.again(store).read("spend").height == 2
        with store.lock("spend"):
            store.erase("spend")
        assert store.features() == []

    def test_the_served_version_is_not_removed(self, store: Store) -> None:
        publish(store, FIRST, 1)
        with store.lock("spend"), pytest.raises(StoreError, match=r"1\.0\.0 is served"):
            store.remove("spend", FIRST)
        assert store.read("spend").height == 1

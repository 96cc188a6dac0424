"""The contract of what an offline store keeps beside versions: identity, books, file states, index, locks, models' locks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mlforge.core.keeper import DefinedNames
from mlforge.core.lock import Lock, LockedColumn
from mlforge.core.manifest import Manifest
from mlforge.core.meaning import FeatureMeaning
from mlforge.core.values import Version
from mlforge.errors import FeatureNotFound, LockMismatch, StoreBusy, StoreError
from mlforge.store import Books, ExportNote, FileState, FileStateMap, Quarantined, SetPin, Store
from mlforge.store.records import Audit, DriftNote, FeatureKeeper, Proven, Sealed
from mlforge.testing.every_field import differ_in_every_field
from mlforge.testing.store_values import (
    FIRST,
    SECOND,
    THIRD,
    StoreFixtures,
    publish,
)


def lock_of(version: Manifest) -> Lock:
    """The lock of a model that was made with the version's sum."""
    meaning = FeatureMeaning.of(version.spec, version.code_hash).column("x__sum__7d")
    parts = {"feature": version.name, **meaning}
    column = LockedColumn("spend__x__sum__7d", "Float64", parts)
    return Lock("checkout", (column,), (f"{version.name}@{version.version}",), "5707e", 17)


class RecordsContract(StoreFixtures):
    """Records come back as they were written, and one writer holds a feature at a time."""

    # Identity

    def test_the_first_write_gives_a_store_the_identity_that_it_keeps(self, store: Store) -> None:
        assert store.identity() is None
        assert store.features() == []
        assert store.identity() is None
        publish(store, FIRST, 1)
        identity = store.identity()
        assert identity is not None
        publish(store, SECOND, 1, 2)
        for opened in (store, self.again(store)):
            assert opened.identity() == opened.establish() == identity

    # Books

    def test_books_come_back_and_are_the_features_own(self, store: Store) -> None:
        books = Books(
            quarantine={"ä/b.parquet": Quarantined("ä/b.parquet", "bad\nthing", "memo", 17)},
            ignored={"c.csv": "not parquet"},
            hold="3 of 4 files are gone",
            by_person=True,
            pins=("1.0.0", "1.2.0"),
            description="what they spent “lately”",
            tags=("users", "money"),
            sets={
                "5e7": SetPin(("1.0.0", "1.3.0"), "/train/2026-11", 17),
                "6f1": SetPin(("1.3.0",), "/train/2026-12", 18, until=23),
            },
            defaults={"amount__sum__7d": 0, "seen": {"date": "2026-01-31"}},
            drift={"amount": DriftNote(0.25, 0.2, "1.2.0")},
            sealed=Sealed(17, "transactions/"),
            copied="c0de",
            keeper=FeatureKeeper("a shop/ü", "5e7" * 21),
            exports={"iceberg:s3://lake/ä": ExportNote("1.2.0", 17)},
        )
        assert differ_in_every_field(books, Books())
        with store.lock("spend"):
            store.write_books("spend", books)
        assert self.again(store).books("spend") == books
        assert store.books("spend2") == Books()
        with store.lock("spend"):
            store.write_books("spend", Books())
        assert store.books("spend") == Books()
        assert store.features() == []

    def test_file_states_come_back(self, store: Store) -> None:
        states = FileStateMap(
            {
                "a.parquet": FileState(10, 1_700_000_000_123_456_789, 5, 2**63, "aa", 7),
                "ä b/#%.parquet": FileState(0, -1, 0, 0, "bb", 1, "b0", "[['x', 'Int64']]"),
            }
        )
        with store.lock("spend"):
            store.write_file_states("spend", states)
        assert self.again(store).file_states("spend") == states
        with store.lock("spend"):
            store.write_file_states("spend", FileStateMap())
        assert store.file_states("spend") == {}

    # Audits

    def test_the_last_audit_comes_back(self, store: Store) -> None:
        assert store.audit("spend") is None
        publish(store, FIRST, 1)
        proof = Audit("1.0.0", 17, 3, 12).following(None)
        alarm = Audit(
            *("1.0.1", 18, 4, 9, 1, ("ab",), ("a file is gone",), 2, ("ä: 1, not 2",), ("user=7",)),
            all=True,
            seconds=0.25,
            proven=Proven("1.0.0", 17, 12),
        )
        for audit in (proof, alarm):
            store.write_audit("spend", audit)
            assert self.again(store).audit("spend") == audit
        assert store.audit("spend2") is None

    # Profiles

    def test_profiles_of_parts_come_back_until_other_parts_are_kept(self, store: Store) -> None:
        publish(store, FIRST, 1)
        documents: dict[str, dict[str, object]] = {
            "a1" * 32: {"format": 1, "ä": [1, None, 2.5]},
            "b2" * 32: {"format": 1},
        }
        store.write_profiles("spend", documents)
        assert self.beside(store).profiles("spend", [*documents, "c3" * 32]) == documents
        assert store.profiles("other", documents) == {}
        store.keep_profiles("spend", {"b2" * 32})
        assert list(store.profiles("spend", documents)) == ["b2" * 32]
        with store.draft() as draft:
            draft.write_profiles("spend", documents)
            draft.keep_profiles("spend", ())
            assert list(draft.profiles("spend", documents)) == ["b2" * 32]
        assert list(store.profiles("spend", documents)) == ["b2" * 32]

    # Index

    def test_the_index_says_what_is_served(self, store: Store) -> None:
        publish(store, FIRST, 1)
        publish(store, FIRST, 1, name="other")
        publish(store, SECOND, 1, 2)
        index = store.index()
        assert list(index) == ["other", "spend"]
        assert index["spend"]["version"] == "1.0.1"
        assert index["spend"]["row_count"] == 2
        assert index["spend"]["entity_keys"] == ["user"]
        assert store.regenerate_index() == ["other", "spend"]
        assert store.index() == index

    # Locks of models

    def test_locks_of_models_come_back_until_they_end(self, store: Store) -> None:
        assert store.locks() == {}
        assert not store.remove_lock("fraud")
        publish(store, FIRST, 1)
        lock = lock_of(store.resolve("spend"))
        for model, own in {"fraud": lock, "churn": lock, "Fraud": lock}.items():
            store.register_lock(model, own)
        later = replace(lock, created_at=18)
        store.register_lock("fraud", later)
        again = self.again(store)
        assert list(again.locks().items()) == [("Fraud", lock), ("churn", lock), ("fraud", later)]
        with pytest.raises(
            StoreError, match=r"'fraud' has a lock of the service 'checkout'.*'refunds'"
        ):
            store.register_lock("fraud", replace(lock, service="refunds"))
        assert again.locks()["fraud"] == later
        for service in ("", "refunds"):  # features that are named one by one are of any
            store.register_lock("churn", replace(lock, service=service))
        store.register_lock("churn", replace(lock, service=""))
        store.register_lock("churn", lock)
        with store.draft() as draft:
            assert draft.locks() == again.locks()
            with pytest.raises(StoreError):
                draft.register_lock("other", lock)
            with pytest.raises(StoreError):
                draft.remove_lock("fraud")
        assert store.remove_lock("fraud")
        assert not again.remove_lock("fraud")
        assert list(store.locks()) == ["Fraud", "churn"]
        assert store.features() == ["spend"]

    def test_a_lock_that_does_not_hold_is_not_registered(self, store: Store) -> None:
        publish(store, FIRST, 1)
        lock = lock_of(store.resolve("spend"))
        publish(store, SECOND, 1, code_hash="an0ther")
        with pytest.raises(LockMismatch, match="spend__x__sum__7d: the function's code changed"):
            store.register_lock("fraud", lock)
        publish(store, THIRD, 1)
        for name in ("../fraud", "", "a/b", ".", "a b"):
            with pytest.raises(StoreError, match="model"):
                store.register_lock(name, lock)
        elsewhere = replace(lock.columns[0], parts={**lock.columns[0].parts, "feature": "other"})
        with pytest.raises(FeatureNotFound, match="other"):
            store.register_lock("fraud", replace(lock, columns=(elsewhere,)))
        assert self.again(store).locks() == {}
        assert store.features() == ["spend"]

    # Versions of services

    def test_versions_of_services_are_written_once_and_come_back(self, store: Store) -> None:
        assert store.service_versions("checkout") == {}
        assert store.services() == []
        document = {"format": 1, "service": {"name": "checkout", "ä": [1, None]}, "lock": {}}
        for version in ("1.9.0", "1.10.0", "1.2.0"):
            assert store.create_service_version("checkout", Version.parse(version), document)
        assert not store.create_service_version("checkout", Version(1, 9, 0), {"format": 2})
        again = self.again(store)
        assert list(map(str, again.service_versions("checkout"))) == ["1.2.0", "1.9.0", "1.10.0"]
        assert all(kept == document for kept in again.service_versions("checkout").values())
        assert store.service_versions("check") == {}
        for name in ("../checkout", "", "a/b", ".", "a b"):
            with pytest.raises(StoreError, match="service"):
                store.create_service_version(name, Version(1, 0, 0), document)
            with pytest.raises(StoreError, match="service"):
                store.service_versions(name)
        assert store.services() == ["checkout"]
        with store.draft() as draft:
            assert draft.service_versions("checkout") == again.service_versions("checkout")
            with pytest.raises(StoreError):
                draft.create_service_version("checkout", Version(2, 0, 0), document)
        assert store.features() == []

    def test_a_version_of_a_service_can_be_removed(self, store: Store) -> None:
        first, second = Version(1, 0, 0), Version(1, 0, 1)
        assert store.services() == []
        for version in (first, second):
            assert store.create_service_version("checkout", version, {"format": 1})
        with store.draft() as draft, pytest.raises(StoreError):
            draft.remove_service_version("checkout", first)
        assert store.services() == ["checkout"]
        assert store.remove_service_version("checkout", first)
        assert list(self.again(store).service_versions("checkout")) == [second]
        assert not store.remove_service_version("checkout", first)
        assert not store.remove_service_version("refunds", first)
        with pytest.raises(StoreError, match="service"):
            store.remove_service_version("../checkout", second)

    def test_one_of_many_creators_of_a_service_s_version_wins(self, store: Store) -> None:
        with ThreadPoolExecutor(8) as threads:
            created = list(
                threads.map(
                    lambda n: self.again(store).create_service_version(
                        "checkout", Version(1, 0, 0), {"format": 1, "n": n}
                    ),
                    range(8),
                )
            )
        [kept] = store.service_versions("checkout").values()
        assert [n for n, won in enumerate(created) if won] == [kept["n"]]

    # Names of definitions

    def test_names_that_definitions_have_come_back_by_their_definitions(self, store: Store) -> None:
        assert store.defined_names("shop") is None
        shop = DefinedNames(frozenset({"spend", "other"}), frozenset({"checkout"}))
        bank = DefinedNames(frozenset({"äpfel"}))
        store.write_defined_names("shop", shop)
        if store.defined_names("shop") is None:
            pytest.skip("this backend keeps no names of definitions")
        store.write_defined_names("../a shop/ü", bank)
        again = self.again(store)
        assert again.defined_names("shop") == shop
        assert again.defined_names("../a shop/ü") == bank
        store.write_defined_names("shop", bank)
        with store.draft() as draft:
            assert draft.defined_names("shop") == bank
            with pytest.raises(StoreError):
                draft.write_defined_names("shop", shop)
        assert store.defined_names("shop") == bank
        assert (store.features(), store.services()) == ([], [])

    # Locks

    def test_one_holds_the_lock_at_a_time_and_features_do_not_wait_for_each_other(
        self, store: Store
    ) -> None:
        order: list[str] = []
        asked, inside = threading.Event(), threading.Event()

        def second() -> None:
            asked.set()
            with self.beside(store).lock("spend"):
                order.append("second")
                inside.set()

        thread = threading.Thread(target=second)
        with store.lock("spend"):
            with store.lock("other"):
                order.append("other")
            thread.start()
            asked.wait(10)
            assert not inside.wait(0.1)
            order.append("first")
        thread.join(10)
        assert order == ["other", "first", "second"]

    def test_a_lock_that_is_not_waited_for_is_refused_while_another_holds_it(
        self, store: Store
    ) -> None:
        def tried() -> None:
            with self.beside(store).lock("spend", wait=False):
                pass

        with ThreadPoolExecutor(1) as thread:
            with store.lock("spend"), pytest.raises(StoreBusy):
                thread.submit(tried).result(60)
            thread.submit(tried).result(60)

    def test_a_lock_is_free_again_after_an_error(self, store: Store) -> None:
        with pytest.raises(ZeroDivisionError), store.lock("spend"):
            raise ZeroDivisionError
        publish(store, FIRST, 1)

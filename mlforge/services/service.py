"""`Service`: the columns that a model takes, with its lock and its kept versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from mlforge.core.arguments import text
from mlforge.core.lock import Lock
from mlforge.services.keeping import VersionStore, service_at
from mlforge.services.locking import Versions, lock_of
from mlforge.services.spec import ServiceSpec


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Service(ServiceSpec):
    """A named list of columns for `get_training_data` and `get_online_features`, in the same order in both.

    name: letters, digits, `_` and `-`. features: features, their names, selections such as `user_spend["a", "b"]` and
        `user_profile.as_("buyer", user_id="buyer_id")`, each alone or with a version.
    request: name -> polars dtype of columns that the caller brings: the spine in training, `request=` online.
    derive: name -> expression over the service's columns, by their names in the answer, request columns, keys,
        earlier derived columns and `t`, the row's or request's instant.
    defaults: column -> value that takes the place of null, before `derive` sees it. The column is named as in
        the answer, or as in its feature: then it means that column of every feature that has it.
    max_age: the oldest acceptable `as_of` online, unless the request says another.
    log: the share of entities, above 0 and up to 1, whose answers over HTTP are kept as parquet files in `served/<name>/`
        below the definitions' root, a source like any other; None keeps none.
    owner, description: for people.

    Raises DefinitionError for arguments of the wrong kind, and ExpressionError for a text that does not parse.
    """

    def lock(self, store: Versions) -> Lock:
        """The lock of its columns as of the versions that the store serves now, which a model that is made with them keeps.

        Raises StoreError for a feature or version that is not there, RetrievalError for columns that do not fit.
        """
        return lock_of(self, store)

    @classmethod
    def at(cls, store: VersionStore, version: str) -> Self:
        """The service as a version of it that the store keeps: `"checkout@1"` is the newest of MAJOR 1.

        It has that version's columns, and each answer of it is held against that version's lock. Raises RetrievalError
        for a version that is not kept, LockMismatch where its features have changed so that it cannot be made any more.
        """
        name = text(version, "Service.at: version", 'write "checkout@1"')
        return service_at(cls, store, name)

"""The contract of every offline store. A backend subclasses `StoreContract` and gives `store` and `again`."""

from __future__ import annotations

from mlforge.testing.erasure_contract import ErasureContract
from mlforge.testing.partials_contract import PartialsContract
from mlforge.testing.publishing_contract import PublishingContract
from mlforge.testing.records_contract import RecordsContract
from mlforge.testing.renames_contract import RenamesContract
from mlforge.testing.versions_contract import VersionsContract


class StoreContract(
    VersionsContract,
    PublishingContract,
    PartialsContract,
    RecordsContract,
    ErasureContract,
    RenamesContract,
):
    """The whole suite; `store` is an empty store, `again` opens the same one anew."""

"""The contract of every online store. A backend subclasses `OnlineStoreContract` and gives the fixture `store`."""

from __future__ import annotations

from mlforge.testing.books_contract import BooksContract
from mlforge.testing.push_contract import PushContract
from mlforge.testing.rows_contract import RowsContract


class OnlineStoreContract(PushContract, BooksContract, RowsContract):
    """The whole suite; every test gets an empty store."""

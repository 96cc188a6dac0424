"""Keys and request columns in a query, beside its options."""

from __future__ import annotations

import polars as pl
import pytest

from mlforge import Service
from mlforge.serve.problems import Refused
from mlforge.serve.queries import parted
from mlforge.serve.values.read_request import entity_request

OPTIONS = ("at", "version")


def test_columns_that_are_called_as_options_are_written_apart() -> None:
    query = {"at": "2026-01-01", "key.at": "7", "user_id": "1", "key.user_id": "2"}
    columns = {"at": "7", "user_id": "1", "key.user_id": "2"}
    assert parted(query, OPTIONS) == ({"at": "2026-01-01"}, columns)


def test_a_service_for_one_entity_takes_columns_that_are_called_as_options() -> None:
    service = Service("plan", ["spend"], request={"layout": pl.Int64, "price": pl.Float64})
    query = b"key.at=7&at=2026-01-01&key.layout=3&price=1.5&details=true"
    read = entity_request(service, query, "application/json")
    assert read.entities == [{"at": "7"}]
    assert read.request == [{"layout": 3, "price": 1.5}]
    assert (read.at, read.layout, read.details) == ("2026-01-01", "nested", True)
    with pytest.raises(Refused, match=r"lacks key\.layout"):
        entity_request(service, b"price=1.5&layout=flat", "application/json")

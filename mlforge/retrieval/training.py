"""Training data: a spine, and beside it the values that features had at each row's own time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import polars as pl

from mlforge.core import clock
from mlforge.core.lock import Lock, lock_named
from mlforge.core.signatures import named_arguments
from mlforge.core.values import SECOND_US, to_iso
from mlforge.engines import engine_named
from mlforge.errors import RetrievalError
from mlforge.frames import interop
from mlforge.retrieval.join import joined
from mlforge.retrieval.labels import Ahead, parse_labels
from mlforge.retrieval.reading import Reading, Terms, read
from mlforge.retrieval.references import FeatureRef, parse_instant
from mlforge.services.locking import check_lock
from mlforge.services.service import Service
from mlforge.store import Store


@named_arguments("get_training_data")
def get_training_data(
    spine: Any,
    features: Sequence[FeatureRef] | Service | str,
    store: Store,
    timestamp: str | None = None,
    engine: str = "polars",
    lock: Lock | str | os.PathLike[str] | None = None,
    labels: Mapping[str, Ahead] | None = None,
    known_at: datetime | date | str | int | None = None,
) -> Any:
    """The spine with each feature's values as of each row's own time.

    spine: a polars DataFrame or LazyFrame, a pandas DataFrame or a pyarrow Table with the features' keys
        and, for features with a timestamp, one temporal column. The same kind comes back: its rows in
        their order, its columns, and behind them `<feature>__<column>` for each value.
    features: names (the served version), features or `(name, version)`; of two versions of one feature the
        prefix is `<feature>__<version>`. `user_spend["a", "b"]` gives these columns alone, and only they are computed;
        `user_profile.as_("buyer", user_id="buyer_id")` gives `buyer__<column>` of the spine's key `buyer_id`. Or a
        Service, or a kept version of one as in `"checkout@1"`: the spine has its request columns, too, and its
        derived columns come behind the features'.
    timestamp: the spine's time column; by default the feature's own timestamp name, else the only
        temporal column.
    engine: "polars" or "duckdb", which give the same values.
    lock: what a model was made with, a Lock or the path of its file: each of its columns must be in the answer as it was.
    labels: `{"spend_ahead": ahead(user_spend, "amount", "sum", "30d")}`: columns behind the others, of events in
        `(t, t + 30d]`; null where that is not over by the feature's watermark.
    known_at: an instant, as `explain` takes one: the versions are those that the store had then.

    For metrics each value is exactly `value(entity, t)`; for a timestamped feature without metrics the
    latest row at or before `t`; for an untimed one the key's row. A null key or time is never
    matched. Only the store is needed, no definitions.
    Raises RetrievalError for a spine that does not fit or two columns that would have one name, StoreError for
    an unknown feature or version, or one that was pruned while it was read; LockMismatch for a column that is gone
    or means something else than it did.
    """
    table, locked = interop.taken(spine), None if lock is None else lock_named(lock)
    terms = Terms(parse_labels(labels), known_at=parse_known_at(known_at))

    def answer(reading: Reading) -> pl.DataFrame:
        if locked is not None:
            names = reading.store.renames().names
            check_lock(locked.renamed(names), reading.service, reading.columns)
        return pl.DataFrame(joined(table, reading, timestamp, engine_named(engine)))

    return table.with_values(read(features, store, answer, terms))


_AHEAD_US = 3_600 * SECOND_US
"""So far clocks of hosts may be apart."""


def parse_known_at(known_at: datetime | date | str | int | None) -> int | None:
    """The instant in UTC microseconds; RetrievalError for all that is none, and for one ahead of now, whose store nobody knows yet."""
    if known_at is None:
        return None
    instant, now = parse_instant(known_at, "known_at"), clock.now()
    if instant > now + _AHEAD_US:
        raise RetrievalError(
            f"known_at={to_iso(instant)} is ahead of now, {to_iso(now)}: what the store will have then is not known; "
            "leave it out for the store as it is"
        )
    return instant


def stored_values(
    spine: pl.DataFrame, features: Sequence[FeatureRef], store: Store, engine: str
) -> pl.DataFrame:
    """The rows of `get_training_data` without features' defaults."""
    table = interop.taken(spine)

    def answer(reading: Reading) -> pl.DataFrame:
        return pl.DataFrame(joined(table, reading.stored, None, engine_named(engine)))

    return spine.hstack(read(features, store, answer))

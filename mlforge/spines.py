"""What callers bring to a retrieval: spines of several kinds, and entities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from mlforge import frames
from mlforge.encoding import entity_key
from mlforge.engines import POINT
from mlforge.errors import RetrievalError
from mlforge.events import as_utc
from mlforge.manifest import Manifest
from mlforge.online import OnlineBooks
from mlforge.schema import FLOATS, INTEGERS, dtypes

Back = Callable[[pl.DataFrame], Any]


def taken(spine: Any) -> tuple[pl.DataFrame, Back]:
    """The spine as a polars frame, and the way back to its kind."""
    if isinstance(spine, pl.DataFrame):
        return spine, lambda frame: frame
    if isinstance(spine, pl.LazyFrame):
        return spine.collect(), lambda frame: frame.lazy()
    kind = type(spine).__module__.partition(".")[0]
    if kind == "pandas":
        index = spine.index
        return pl.DataFrame(pl.from_pandas(spine)), lambda frame: frame.to_pandas().set_index(index)
    if kind == "pyarrow":
        return pl.DataFrame(pl.from_arrow(spine)), lambda frame: frame.to_arrow()
    raise RetrievalError(
        f"a spine of {type(spine).__name__} is not supported; give a polars, pandas or pyarrow table"
    )


def points(spine: pl.DataFrame, manifest: Manifest, timestamp: str | None) -> pl.DataFrame:
    """The feature's keys in its dtypes, and the instant of each row where it has a timestamp."""
    spec, given = manifest.spec, dtypes(manifest.events)
    columns = [_key(spine, key, given[key], manifest.name) for key in spec.keys]
    if spec.timestamp is not None:
        name = _time_column(spine, spec.timestamp, timestamp, manifest.name)
        columns.append(_instants(spine[name]))
    return pl.DataFrame(columns)


def entities(
    asked: Sequence[Mapping[str, object]], books: Mapping[str, OnlineBooks]
) -> list[dict[str, Any]]:
    """The entities with their keys in the features' dtypes; wrong names are refused."""
    keys = {key.name: key for book in books.values() for key in book.keys}
    return [entity_key(entity, tuple(keys.values())) for entity in asked]


def own_keys(entity: Mapping[str, Any], books: OnlineBooks) -> dict[str, Any]:
    """Those of an entity's keys that a feature has."""
    return {key.name: entity[key.name] for key in books.keys}


def _key(spine: pl.DataFrame, key: str, dtype: str, feature: str) -> pl.Series:
    if key not in spine.columns:
        raise RetrievalError(
            f"{feature}: the spine has no key column {key!r}; it has {', '.join(spine.columns)}"
        )
    values, wanted = spine[key], frames.to_polars(dtype)
    if values.dtype == wanted:
        return values
    if dtype == "String" and isinstance(values.dtype, (pl.Categorical, pl.Enum)):
        return values.cast(pl.String)
    if values.dtype == pl.Null:
        return values.cast(wanted)
    kind = frames.dtype_text(values.dtype)
    if dtype in INTEGERS and kind in INTEGERS:
        # An id that does not fit the feature's width is an entity never seen.
        return values.cast(wanted, strict=False)
    if dtype in INTEGERS and kind in FLOATS:
        known = values.fill_nan(None)
        whole = known.drop_nulls()
        if bool((whole == whole.floor()).all()):
            return known.cast(wanted, strict=False)
        raise RetrievalError(
            f"{feature}: the spine's key {key!r} has fractions, the feature's is {dtype}"
        )
    raise RetrievalError(
        f"{feature}: the spine's key {key!r} is {kind}, the feature's is {dtype}; cast it first"
    )


def _instants(times: pl.Series) -> pl.Series:
    if times.dtype == pl.Null:
        times = times.cast(frames.UTC_INSTANT)
    if not isinstance(times.dtype, (pl.Datetime, pl.Date)):
        raise RetrievalError(
            f"the spine's time column {times.name!r} is {frames.dtype_text(times.dtype)}; make it a Datetime or Date first"
        )
    return pl.select(as_utc(pl.lit(times), times.dtype).alias(POINT)).to_series()


def _time_column(spine: pl.DataFrame, own: str, asked: str | None, feature: str) -> str:
    if asked is not None:
        if asked not in spine.columns:
            raise RetrievalError(
                f"the spine has no time column {asked!r}; it has {', '.join(spine.columns)}"
            )
        return asked
    if own in spine.columns:
        return own
    temporal = [
        name for name, dtype in spine.schema.items() if isinstance(dtype, (pl.Datetime, pl.Date))
    ]
    if len(temporal) == 1:
        return temporal[0]
    found = (
        f"several temporal columns ({', '.join(temporal)})" if temporal else "no temporal column"
    )
    raise RetrievalError(
        f"{feature}: the spine has {found} and none is named {own!r}; say which with timestamp="
    )

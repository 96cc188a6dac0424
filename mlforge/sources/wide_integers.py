"""Files with integers of 128 bits, as polars writes them: Arrow cannot even open those as they are.

All other columns are read, in the types that polars finds in the footer.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

_WIDE = (pl.Int128, pl.UInt128)
_EMBEDDED, _HIDDEN = b"ARROW:schema", b"arrow:schema"
_REASON = "Arrow cannot read integers of 128 bits; write it as Int64, Decimal or text"


def is_of_wide_integers(error: pa.ArrowException) -> bool:
    """Whether Arrow refused a file because its embedded schema has integers of 128 bits."""
    return isinstance(error, pa.ArrowNotImplementedError) and "more than 64 bits" in str(error)


def without_embedded_schema(raw: bytes) -> bytes:
    """The file's bytes with its embedded Arrow schema under a name that Arrow does not look for."""
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    return raw[:footer] + raw[footer:].replace(_EMBEDDED, _HIDDEN)


def as_embedded(table: pa.Table, raw: bytes) -> tuple[pa.Table, dict[str, str]]:
    """The table of the physical columns in the types of the embedded schema, and the columns left out, with reasons.

    Raises polars' errors for a footer that it cannot read, pyarrow.ArrowException for values that do not fit it.
    """
    schema = pl.read_parquet_schema(io.BytesIO(raw))
    left_out = {name: _REASON for name, dtype in schema.items() if _is_wide(dtype)}
    kept = [name for name in table.column_names if name not in left_out]
    embedded = pl.DataFrame(schema={name: schema[name] for name in kept}).to_arrow().schema
    return table.select(kept).cast(embedded), left_out


def _is_wide(dtype: PolarsDataType) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(_is_wide(field.dtype) for field in dtype.fields)
    if isinstance(dtype, pl.List | pl.Array):
        return _is_wide(dtype.inner)
    return dtype in _WIDE

"""Errors that reading damaged bytes ends in, whichever library reads: known here alone."""

from __future__ import annotations

import pyarrow as pa
from polars.exceptions import PanicException, PolarsError

POLARS_FAULTS = (PolarsError, PanicException)
"""Errors of polars; PanicException is a BaseException."""
DAMAGE = (OSError, *POLARS_FAULTS)
"""Errors of reading a file that is missing or whose bytes are damaged."""
MISREAD = (*DAMAGE, KeyError, TypeError, ValueError)
"""The same of reading what a file says of itself, which then is understood."""
UNDECODABLE = (*MISREAD, pa.ArrowException, OverflowError, MemoryError)
"""The same of bytes that anybody may have written."""

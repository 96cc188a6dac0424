"""Errors that reading damaged bytes ends in, whichever library reads: known here alone."""

from __future__ import annotations

import pyarrow as pa
from polars.exceptions import PanicException, PolarsError

POLARS_FAULTS = (PolarsError, PanicException)
"""Errors of polars; PanicException is a BaseException."""
DAMAGE = (OSError, *POLARS_FAULTS)
"""Errors of reading a file that is missing or whose bytes are damaged."""
MISREAD = (*DAMAGE, KeyError, TypeError, ValueError)
"""Errors of reading what such a file says of itself, and of understanding it."""
UNDECODABLE = (*MISREAD, pa.ArrowException, OverflowError, MemoryError)
"""Errors of decoding bytes that anybody may have written."""

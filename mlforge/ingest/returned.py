"""Words for what a function returned in place of a polars frame, and how to make it one."""

from __future__ import annotations

# How to make a polars frame of what functions return instead, by the type's package and name.
_MAKE_POLARS = {
    ("pandas", "DataFrame"): ("a pandas DataFrame", "return pl.from_pandas(...) of it"),
    ("pandas", "Series"): ("a pandas Series", "return pl.from_pandas(...).to_frame() of it"),
    ("pyarrow", "Table"): ("a pyarrow Table", "return pl.from_arrow(...) of it"),
    ("pyarrow", "RecordBatch"): ("a pyarrow RecordBatch", "return pl.from_arrow(...) of it"),
    ("polars", "Series"): ("a polars Series", "return .to_frame(), with the keys beside it"),
    ("polars", "Expr"): ("a polars expression", "return df.select(...) or df.with_columns(...)"),
    ("polars", "GroupBy"): ("a polars GroupBy", "end it with .agg(...)"),
    ("polars", "LazyGroupBy"): ("a polars LazyGroupBy", "end it with .agg(...)"),
    ("duckdb", "DuckDBPyRelation"): ("a DuckDB relation", "return .pl() of it"),
    ("numpy", "ndarray"): ("a numpy array", "return pl.DataFrame(..., schema=[...]) of it"),
    ("builtins", "NoneType"): ("None", "does it end in `return`?"),
    ("builtins", "generator"): (
        "a generator",
        "return a frame, such as pl.concat(...) of the frames",
    ),
    ("builtins", "list"): ("a list", "return pl.DataFrame(...) or pl.concat(...) of it"),
    ("builtins", "tuple"): ("a tuple", "return one frame"),
    ("builtins", "dict"): ("a dict", "return pl.DataFrame(...) of it"),
    ("builtins", "coroutine"): ("a coroutine", "a feature's function cannot be async"),
}


def described(returned: object) -> str:
    """A returned object in words, with the expression that would make it a polars frame."""
    for kind in type(returned).__mro__:
        package = kind.__module__.partition(".")[0]
        if conversion := _MAKE_POLARS.get((package, kind.__name__)):
            what, mend = conversion
            return f"{what}; it must return a polars DataFrame or LazyFrame: {mend}"
    what = f"{type(returned).__module__}.{type(returned).__qualname__}"
    return f"{what}; it must return a polars DataFrame or LazyFrame"

"""Texts of values that are equal only for values that do the same, as far as the value alone tells."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

import polars as pl

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_ROWS = 10_000
_LONG = 1 << 24  # the repr of bytes is up to four times as long, and is copied several times
_AS_LONG = str.maketrans("qQ", "lL")  # two names of one type, of which a copy may have the other


def pack(*texts: str) -> str:
    """Texts joined into one, unambiguously: different lists give different texts."""
    return "".join(f"{len(text)}:{text}," for text in texts)


def digest(content: str | bytes | memoryview) -> str:
    """sha256 hex of a text or of bytes."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()


def name_of(kind: type) -> str:
    """A type's module and name."""
    return f"{kind.__module__}.{kind.__qualname__}"


def plain_text(value: object) -> str:
    """The type and the repr of a plain value; of a long text, or long bytes, the hash."""
    if isinstance(value, (str, bytes)) and len(value) > _LONG:
        return f"{type(value).__name__} {digest(value)}"
    return f"{type(value).__name__} {value!a}"


def expression_text(expression: pl.Expr) -> str:
    """The expression as JSON, else as it prints."""
    text = str(expression)
    if "python_udf" in text:  # does not serialise, or not to the same bytes each time
        return text
    try:
        return expression.meta.serialize(format="json")
    except pl.exceptions.PolarsError:
        return text


def plan_text(frame: pl.LazyFrame) -> str:
    """A hash of the serialised plan, else the plan as it prints."""
    try:
        return digest(frame.serialize())
    except pl.exceptions.PolarsError:
        return frame.explain(optimized=False)


def content_texts(value: Any) -> tuple[str, str] | None:
    """Schema and rows of anything that speaks Arrow; None of what holds values that Arrow has not."""
    try:
        frame = _as_frame(value)
    except Exception:  # noqa: BLE001 - a foreign value may raise anything
        return None
    hashed = hashlib.sha256()
    for part in frame.iter_slices(_ROWS):
        hashed.update(repr(part.rows()).encode("utf-8", "surrogatepass"))
    return repr(frame.schema), hashed.hexdigest()


def objects_in(value: object) -> list[Any] | None:
    """The columns and rows of what polars has of objects of Python, whose bytes say nothing of them; None of any other value."""
    frame = value.to_frame() if isinstance(value, pl.Series) else value
    if not isinstance(frame, pl.DataFrame) or pl.Object not in frame.dtypes:
        return None
    return [repr(frame.schema), *frame.rows()]


def bound_of(value: object) -> list[str]:
    """The number of items at which a container lets go of earlier ones, as text; nothing where it never does."""
    most = value.maxlen if isinstance(value, deque) else None
    return [] if most is None else [pack("at most", str(most))]


def _as_frame(value: Any) -> pl.DataFrame:
    if isinstance(value, pl.DataFrame):
        return value
    try:
        return pl.DataFrame(value)
    except pl.exceptions.SchemaError:  # a column alone, as a series of pandas
        return pl.Series(value).to_frame()


def buffer_text(value: Any) -> str | None:
    """The bytes of an array, hashed, with their type and shape; None for a value without such, or one of padded records."""
    try:
        view = memoryview(_of_a_tensor(value) if is_tensor(value) else value)
        if "O" not in view.format and not _is_padded(value):
            kind = view.format.translate(_AS_LONG)
            return pack(name_of(type(value)), kind, str(view.shape), digest(_elements(view)))
    except Exception:  # noqa: BLE001 - a foreign value may raise anything
        pass
    return None


def _elements(view: memoryview) -> memoryview | bytes:
    """The bytes of an array, in the order of its elements."""
    try:
        return view.cast("B")
    except TypeError:  # they lie apart, or are of several fields
        return view.tobytes()


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor of torch: what a copy of one is made of holds an address, which is another in each process."""
    return any(
        kind.__name__ == "Tensor" and kind.__module__ == "torch" for kind in type(value).__mro__
    )


def columns_of(value: Any) -> Mapping[str, Any]:
    """The columns of an array of padded records, whose bytes between them mean nothing; of other values none."""
    return {name: value[name].copy() for name in value.dtype.names} if _is_padded(value) else {}


def shown_text(value: object) -> str:
    """The repr, addresses left out, with the type's name."""
    try:
        return pack(name_of(type(value)), _ADDRESS.sub("", repr(value)))
    except Exception:  # noqa: BLE001 - the repr of a foreign value may raise anything
        return name_of(type(value))


def _of_a_tensor(tensor: Any) -> Any:
    """The elements of a tensor, as numpy has them; of kinds that it has not, such as bfloat16, as wider numbers."""
    values = tensor.detach().cpu()
    try:
        return values.numpy()
    except TypeError:
        return values.float().numpy()


def _is_padded(value: Any) -> bool:
    """Whether a value is an array of records with bytes between their fields."""
    dtype: Any = getattr(value, "dtype", None)
    names = getattr(dtype, "names", None) or ()
    return bool(names) and sum(dtype.fields[name][0].itemsize for name in names) < int(
        dtype.itemsize
    )

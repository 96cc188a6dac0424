"""Proves from the polars plan that a function treats each row alone.

The results of such a function file by file equal its result over all files. Joins with the function's tables look at
one row at a time, too. Only steps and expressions that are listed here are taken to be row-wise:
a plan with anything else, such as a newer polars' inventions, is not proven.
"""

from __future__ import annotations

import datetime
import decimal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import polars as pl
from polars.io.plugins import register_io_source

from mlforge.features import purity

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

# The form of the plans that the names below were read from; polars counts it up as it changes.
_PLAN_FORM = 16

_UNARY = """abs negate sign floor ceil round round_sig_figs truncate sqrt cbrt exp log log1p pow sin cos
    tan cot arcsin arccos arctan atan2 sinh cosh tanh arcsinh arccosh arctanh degrees radians erf erfc
    clip reinterpret"""
_CHOICE = """fill_null fill_null_with_strategy coalesce replace replace_strict repeat_by as_struct
    max_horizontal min_horizontal sum_horizontal mean_horizontal"""
_BY_NAMESPACE = {
    "BitwiseFunction": """CountOnes CountZeros LeadingOnes LeadingZeros TrailingOnes TrailingZeros""",
    "BooleanFunction": """IsBetween IsClose IsFinite IsIn IsInfinite IsNan
        IsNotNan IsNotNull IsNull Not""",
    "StringFunction": """Base64Decode Base64Encode ConcatHorizontal Contains ContainsAny CountMatches
        EndsWith EscapeRegex Extract ExtractAll ExtractGroups ExtractMany Find FindMany Format Head
        HexDecode HexEncode JsonDecode JsonPathMatch LenBytes LenChars Lowercase Normalize PadEnd
        PadStart Replace ReplaceMany Reverse Slice Split SplitExact SplitN SplitRegex StartsWith
        StripChars StripCharsEnd StripCharsStart StripPrefix StripSuffix Strptime Tail Titlecase
        ToDecimal ToInteger Uppercase ZFill""",
    "TemporalFunction": """BaseUtcOffset CastTimeUnit Century Combine ConvertTimeZone DSTOffset Date
        DatetimeFunction Day DaysInMonth Duration Hour IsLeapYear IsoYear Microsecond
        Millennium Millisecond Minute Month MonthEnd MonthStart Nanosecond OffsetBy OrdinalDay Quarter
        Replace ReplaceTimeZone Round Second Time TimeStamp ToString TotalDays TotalHours
        TotalMicroseconds TotalMilliseconds TotalMinutes TotalNanoseconds TotalSeconds Truncate Week
        WeekDay Year""",
    "ListFunction": """ArgMax ArgMin Concat Contains CountMatches DropNulls Gather GatherEvery Get
        Join Length Max Mean Median Min SetOperation Shift Slice Sort Std Sum ToArray ToStruct Var""",
    "ArrayFunction": """ArgMax ArgMin Contains CountMatches Dot Get Join Length Max Mean Median Min Shift
        Sort Std Sum ToList Var""",
    "StructFunction": "DropFields FieldByName JsonEncode PrefixFields RenameFields SuffixFields",
}  # fmt: skip
ROW_WISE = frozenset(
    [
        *_UNARY.split(),
        *_CHOICE.split(),
        *(f"{space}.{name}" for space, names in _BY_NAMESPACE.items() for name in names.split()),
    ]
)

# How polars' names for what is refused are known to those who write features.
_KNOWN_AS = {
    "AnonymousFunction": "a Python function",
    "binary expr": "a function of .bin",  # polars does not say which
    "anonymousfunction": "a Python function (map_elements or map_batches)",
    "opaque python mapfunction": "a Python function (map_batches or inspect)",
    "list.eval": "an expression evaluated on lists",
    "DataFrameScan": "rows of another frame",
    "Distinct": "unique",
    "Explode": "explode",
    "Filter": "filter inside an expression",
    "Gather": "gather or get",
    "GroupBy": "group_by",
    "HConcat": "a horizontal concat",
    "Join": "join",
    "Len": "len",
    "MergeSorted": "merge_sorted",
    "Rolling": "rolling",
    "Scan": "rows of other files",
    "Slice": "head, tail, limit or slice",
    "Sort": "sort",
    "SortBy": "sort_by",
    "StructEval": "struct.with_fields",
    "Union": "concat",
    "Window": "over",
}
_JOINS = ("Left", "Inner", "Semi", "Anti")
# Inputs that are one mapping or set of patterns for all rows, unless they are columns.
_MAPPINGS = {
    "replace": slice(1, 3),
    "replace_strict": slice(1, 3),
    "StringFunction.ContainsAny": slice(1, None),
    "StringFunction.ExtractMany": slice(1, None),
    "StringFunction.FindMany": slice(1, None),
    "StringFunction.ReplaceMany": slice(1, None),
}
_VALUES = (bool, int, float, str, bytes, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta)  # fmt: skip

_tracing = threading.Lock()  # warning filters are the whole process's


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a function is proven to treat each row alone, and why, or why not."""

    holds: bool
    reason: str


class Doubt(Exception):
    """The reason why a function is not proven."""


def prove(
    function: Callable[..., object],
    schema: pl.Schema,
    tables: Mapping[str, pl.Schema] = MappingProxyType({}),
) -> Proof:
    """Prove that a function treats each row alone, and is the same each time; it never raises.

    The function is called twice with LazyFrames without data, for the rows and, by name, for its tables.
    The proof holds for calls with LazyFrames of these schemas only.
    """
    try:
        code = purity.call_unwatched(lambda: purity.named(function))
        if code.error is not None:
            raise Doubt(f"its code is not readable: {_headline(code.error)}")
        if code.result:
            raise Doubt(f"it {code.result}")
        first, second = trace(function, schema, tables), trace(function, schema, tables)
    except Doubt as error:
        return Proof(False, str(error))
    if first != second:
        return Proof(False, "it does something else each time: two calls gave two plans")
    return Proof(True, "only projections and filters that look at one row at a time")


def trace(
    function: Callable[..., object],
    schema: pl.Schema,
    tables: Mapping[str, pl.Schema] = MappingProxyType({}),
) -> str:
    """The row-wise plan that a function makes, as text without addresses; raises Doubt on any other."""
    source, *table_sources = sources = [_Source("rows"), *map(_Source, tables)]
    frame = register_io_source(source, schema=schema)
    further = {
        other.name: register_io_source(other, schema=tables[other.name]) for other in table_sources
    }
    with _tracing, warnings.catch_warnings():
        warnings.simplefilter("ignore", pl.exceptions.PerformanceWarning)  # `df.columns`
        outcome = purity.call(lambda: function(frame, **further))
    if any(each.was_read for each in sources):
        raise Doubt("it looks at the data while the plan is made (collect, or what collects)")
    if outcome.first_question:
        raise Doubt(f"it {outcome.first_question}")
    if outcome.error is not None:
        raise Doubt(f"called with a LazyFrame it fails: {_headline(outcome.error)}")
    result = outcome.result
    if not isinstance(result, pl.LazyFrame):
        raise Doubt(f"called with a LazyFrame it returns {type(result).__name__}, not a LazyFrame")
    outcome = purity.call_unwatched(lambda: _Plan(result, source, table_sources).text())
    if isinstance(outcome.error, Doubt):
        raise outcome.error
    if outcome.error is not None:
        raise Doubt(f"its plan is not readable: {_headline(outcome.error)}")
    return str(outcome.result)


class _Source:
    """A source without data, which remembers whether the function tried to read it."""

    def __init__(self, name: str) -> None:
        self.name, self.was_read = name, False

    def __call__(self, *_: object) -> NoReturn:
        self.was_read = True
        raise RuntimeError("there is no data while a function is being proven")


@dataclass(frozen=True, slots=True)
class _Seen:
    """An expression as text; `varies` if it has one value a row, else it has one value."""

    text: str
    varies: bool
    dtype: pl.DataType


class _Plan:
    """Reads a plan as polars resolved it, not optimised, from its last step to its source."""

    def __init__(self, frame: pl.LazyFrame, source: _Source, tables: Sequence[_Source]) -> None:
        self._source, self._tables = source, tables
        flags = pl.QueryOptFlags.none()._pyoptflags
        self._nodes: Any = frame._ldf.with_optimizations(flags).visit()
        form = self._nodes.version()
        if form[0] != _PLAN_FORM:
            raise Doubt(
                f"polars {pl.__version__} writes plans in form {form[0]}; form {_PLAN_FORM} is known"
            )

    def text(self) -> str:
        """The plan, from the function's rows to its result; raises Doubt if it is not row-wise."""
        return self._branch([self._source])

    def _branch(self, ends: Sequence[_Source]) -> str:
        """The steps from the current node down to one of the sources."""
        steps: list[str] = []
        while True:
            node = _view(self._nodes.view_current_node)
            kind = type(node).__name__
            if kind == "PythonScan":
                scanned = getattr(node.options[0], "io_source", None)
                end = next((end for end in ends if scanned is end), None)
                if end is None:
                    _refuse("rows of another source")
                return "\n".join([f"Scan {end.name!a}", *reversed(steps)])
            step = self._join if kind == "Join" else self._step
            steps.append(f"{kind} {self._nodes.get_schema()} {step(kind, node)}")

    def _join(self, kind: str, node: Any) -> list[str]:
        """A join of the rows with a table, each row alone; the rows' side is the next step."""
        how = node.options[0]
        if how not in _JOINS or not self._tables or node.predicate is not None:
            _refuse(kind)
        left, right = self._nodes.get_inputs()
        self._nodes.set_node(right)
        table = self._branch(self._tables)
        self._nodes.set_node(right)
        right_keys = [self._expression(key.node).text for key in node.right_on]
        self._nodes.set_node(left)
        left_keys = [self._expression(key.node).text for key in node.left_on]
        return [ascii(node.options), table, *left_keys, *right_keys]

    def _step(self, kind: str, node: Any) -> list[str]:
        expressions, inputs = self._nodes.get_exprs(), self._nodes.get_inputs()
        if kind == "MapFunction" and node.function[0] != "unnest":
            _refuse(str(node.function[0]))
        if kind not in ("Select", "HStack", "Filter", "SimpleProjection", "MapFunction"):
            _refuse(kind)
        (below,) = inputs
        self._nodes.set_node(below)  # dtypes are those of the step whose columns are used
        seen = [self._expression(expression.node) for expression in expressions]
        if kind == "Select" and not any(expression.varies for expression in seen):
            raise Doubt("it selects only constants, which is one row for any number of rows")
        outputs = [expression.output_name for expression in expressions]
        function_text = [repr(node.function)] if kind == "MapFunction" else []
        # Sorted, as polars shuffles the columns of a cast; their order is in the schema.
        return function_text + sorted(
            f"{name!a}={e.text}" for name, e in zip(outputs, seen, strict=True)
        )

    def _expression(self, number: int) -> _Seen:
        node = _view(lambda: self._nodes.view_expression(number))
        dtype = self._nodes.get_dtype(number)
        match type(node).__name__:
            case "Column":
                return _Seen(f"col({node.name!a})", True, dtype)
            case "Literal":
                return _Seen(f"{node.dtype}({_literal(node.value)})", False, dtype)
            case "Cast":
                inner = self._expression(node.expr)
                _check_cast(inner.dtype, node.dtype)
                return _Seen(
                    f"cast({inner.text}, {node.dtype}, {node.options})", inner.varies, dtype
                )
            case "BinaryExpr":
                name, inputs = str(node.op), [node.left, node.right]
            case "Ternary":
                name, inputs = "when", [node.predicate, node.truthy, node.falsy]
            case "Function":
                data = (
                    node.function_data
                    if isinstance(node.function_data, tuple)
                    else (node.function_data,)
                )
                name, inputs = f"{data[0]}{data[1:]}", node.input
            case "Agg":
                _refuse(f"{node.name} of a column")
            case other:
                _refuse(other)
        seen = [self._expression(number) for number in inputs]
        if type(node).__name__ == "Function":
            _check_function(str(data[0]), data[1:], seen)
        text = f"{name}[{', '.join(expression.text for expression in seen)}]"
        return _Seen(text, any(expression.varies for expression in seen), dtype)


def _view(view: Callable[[], Any]) -> Any:
    try:
        return view()
    except NotImplementedError as error:  # polars shows what it thinks another engine can run
        _refuse(str(error))


def _refuse(what: str) -> NoReturn:
    raise Doubt(f"it uses {_KNOWN_AS.get(what, what)}, which is not known to treat each row alone")


def _literal(value: object) -> str:
    match value:
        case None:
            return "null"
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case dict():
            return f"{{{', '.join(f'{k!a}: {_literal(v)}' for k, v in value.items())}}}"
        case _ if isinstance(value, _VALUES):
            return ascii(value)
        case _:
            raise Doubt(
                "it uses a Series, or a Python object, as a literal: it is as long as it is"
            )


def _check_function(name: str, options: tuple[Any, ...], inputs: Sequence[_Seen]) -> None:
    if name not in ROW_WISE:
        _refuse(name)
    if name == "StringFunction.Strptime" and options[0] is None:
        raise Doubt(
            "it lets polars guess a format from the data; give one, as in to_datetime(format)"
        )
    if name == "fill_null_with_strategy" and options[0] not in ("zero", "one"):
        _refuse(f"fill_null(strategy={options[0]!r})")
    mapping = inputs[_MAPPINGS[name]] if name in _MAPPINGS else ()
    if any(expression.varies for expression in mapping):
        raise Doubt(
            f"it uses {name} with a column as the mapping or the patterns; literals would do"
        )
    if name == "BooleanFunction.IsIn" and inputs[1].varies and not inputs[1].dtype.is_nested():
        raise Doubt("it uses is_in with another column; a literal collection would do")


def _check_cast(before: pl.DataType, after: pl.DataType) -> None:
    """A cast must not depend on other values: no guessed format, no code of a category."""
    inner, outer = set(_leaves(before)), set(_leaves(after))
    if pl.Object in inner | outer:
        raise Doubt("it casts Python objects")
    if pl.String in inner and any(leaf.is_temporal() for leaf in outer):
        raise Doubt("it casts text to a time; str.to_datetime(format) would do")
    if pl.Categorical in inner and outer - {pl.String, pl.Categorical, pl.Enum}:
        raise Doubt("it uses the codes of categories, which depend on what was seen before")


def _leaves(dtype: pl.DataType) -> Iterator[type[pl.DataType]]:
    match dtype:
        case pl.Struct():
            for field in dtype.fields:
                yield from _leaves(_instance(field.dtype))
        case pl.List() | pl.Array():
            yield from _leaves(_instance(dtype.inner))
        case _:
            yield dtype.base_type()


def _instance(dtype: PolarsDataType) -> pl.DataType:
    return dtype() if isinstance(dtype, type) else dtype


def _headline(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

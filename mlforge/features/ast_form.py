"""A function's source as text that changes only where its meaning may."""

from __future__ import annotations

import ast
import linecache
import warnings
from collections.abc import Container, Iterator
from functools import lru_cache
from types import CodeType
from typing import Any

from mlforge.core.syntax import module_tree

# What says nothing about behaviour, or is described elsewhere, wherever it occurs.
_SILENT = {"annotation", "ctx", "kind", "returns", "type_comment", "type_ignores", "type_params"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

# By code, so that a function keeps its form after its file was edited: it still runs the old one.
_forms: dict[tuple[str, CodeType], str | None] = {}


def normal_form(code: CodeType, namespace: dict[str, Any]) -> str | None:
    """The normalised syntax of a function, by its code object; None where the source is missing.

    Name, decorators, defaults, annotations, docstrings, comments and layout are left out. Source that
    does not compile to this very code, an edited file for one, counts as none.
    """
    key = (code.co_filename, code)
    if key not in _forms:
        node = _find(code, namespace)
        _forms[key] = None if node is None else _top(node)
    return _forms[key]


def _find(code: CodeType, namespace: dict[str, Any]) -> _Function | None:
    linecache.checkcache(code.co_filename)
    parsed = _parse("".join(linecache.getlines(code.co_filename, namespace)), code.co_filename)
    if parsed is None:
        return None
    tree, module = parsed
    if not any(_same(code, other) for other in nested(module)):
        return None
    if code.co_name == "<lambda>":
        return _lambda(code, tree)
    return next(
        (
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name == code.co_name
            and min([node.lineno, *(d.lineno for d in node.decorator_list)]) == code.co_firstlineno
        ),
        None,
    )


@lru_cache(maxsize=64)
def _parse(text: str, filename: str) -> tuple[ast.Module, CodeType] | None:
    if not text:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # shown already when the module was imported
            return module_tree(text), compile(text, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None


def nested(code: CodeType) -> Iterator[CodeType]:
    """The code itself and every code inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested(constant)


def _same(code: CodeType, other: CodeType) -> bool:
    """Whether two codes do the same at the same place; what a debugger reads does not count."""
    return (
        (code.co_name, code.co_firstlineno) == (other.co_name, other.co_firstlineno)
        and (code.co_code, code.co_names) == (other.co_code, other.co_names)
        and (code.co_varnames, code.co_freevars) == (other.co_varnames, other.co_freevars)
        and len(code.co_consts) == len(other.co_consts)
        and all(
            _same(a, b)
            if isinstance(a, CodeType) and isinstance(b, CodeType)
            else type(a) is type(b) and (a == b if isinstance(a, frozenset) else repr(a) == repr(b))
            for a, b in zip(code.co_consts, other.co_consts, strict=True)
        )
    )


def _lambda(code: CodeType, tree: ast.Module) -> ast.Lambda | None:
    """The lambda of this code: of several on one line, the smallest around all its instructions."""
    lambdas = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno
    ]
    if len(lambdas) > 1:
        places = [
            ((line, column), (end_line, end_column))
            for line, end_line, column, end_column in code.co_positions()
            if line is not None
            and column is not None
            and end_line is not None
            and end_column is not None
            and (line, column) != (end_line, end_column)
        ]
        lambdas = [
            node
            for node in lambdas
            if places
            and all(_start(node.body) <= at and end <= _end(node.body) for at, end in places)
        ]
        lambdas.sort(key=lambda node: (_start(node), _end(node)), reverse=True)
    return lambdas[0] if lambdas else None


def _start(node: ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: ast.expr) -> tuple[int, int]:
    return node.end_lineno or 0, node.end_col_offset or 0


def _top(node: _Function) -> str:
    arguments = _fields(node.args, {"defaults", "kw_defaults"})
    body = _dump(node.body) if isinstance(node, ast.Lambda) else _statements(node.body)
    return f"{type(node).__name__}({arguments}; {body})"


def _dump(value: Any) -> str:
    """Like `ast.dump`, whose output differs between Python releases."""
    match value:
        case ast.Constant():
            return f"{type(value.value).__name__}:{value.value!a}"
        case ast.ClassDef():
            # A class may read its annotations (a dataclass does), so they are code there.
            return (
                f"ClassDef({_fields(value, {'body'})}; {_statements(value.body, annotated=True)})"
            )
        case ast.JoinedStr():
            return f"JoinedStr([{', '.join(_pieces(value.values))}])"
        case ast.AST():
            return f"{type(value).__name__}({_fields(value)})"
        case [ast.stmt(), *_]:
            return _statements(value)
        case list():
            return f"[{', '.join(map(_dump, value))}]"
        case _:
            return repr(value)


def _fields(node: ast.AST, without: Container[str] = ()) -> str:
    return ", ".join(
        f"{name}={_dump(field)}"
        for name, field in ast.iter_fields(node)
        if name not in _SILENT and name not in without and field is not None and field != []
    )


def _statements(body: list[ast.stmt], *, annotated: bool = False) -> str:
    kept = []
    for statement in body:
        match statement:
            case ast.Pass() | ast.Expr(value=ast.Constant()):  # docstrings, too
                continue
            case ast.AnnAssign() if annotated:
                kept.append(f"{_dump(statement.annotation)} {_dump(statement)}")
            case ast.AnnAssign(value=None):
                continue
            case ast.AnnAssign():
                kept.append(
                    f"Assign(targets=[{_dump(statement.target)}], value={_dump(statement.value)})"
                )
            case _:
                kept.append(_dump(statement))
    return f"[{', '.join(kept)}]"


def _pieces(values: list[ast.expr]) -> Iterator[str]:
    """The parts of an f-string, its neighbouring constants as one."""
    text = ""
    for value in values:
        if isinstance(value, ast.Constant):
            text += str(value.value)
        else:
            if text:
                yield f"str:{text!a}"
            text = ""
            yield _dump(value)
    if text:
        yield f"str:{text!a}"

"""Features that another of the same name would take the place of in silence."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mlforge.build.keeping import definition_hash
from mlforge.core.syntax import module_tree
from mlforge.definitions.taken_names import shown
from mlforge.errors import DefinitionError
from mlforge.features.feature import Feature, feature
from mlforge.features.selection import Selection


def check_meant(user: str, uses: Iterable[object], features: Mapping[str, Feature]) -> None:
    """Raise DefinitionError where a user means another feature than that of the definitions which has its name.

    uses: features and selections of features; all else is by name. A feature that is defined alike, as by a module that was imported
    twice, is the same.
    """
    for use in uses:
        name = use.name if isinstance(use, Feature) else _name_of(use)
        known = features.get(name)
        if known is None or use is known:
            continue
        is_same = (
            definition_hash(use) == definition_hash(known)
            if isinstance(use, Feature)
            else isinstance(use, Selection) and use.spec == known.spec
        )
        if not is_same:
            raise DefinitionError(
                f"Definitions: {user} takes another feature {name!r} than the one among the features; give one of them "
                f"name=, or make {user} again of the one that is there"
            )


def check_none_lost(module: ModuleType, features: Iterable[Feature]) -> None:
    """Raise DefinitionError for a feature of a module that a later function of the same Python name has taken the place of.

    features: those of the definitions, among which it may still be, as it was listed before.
    """
    listed = {
        (code.co_filename, code.co_firstlineno)
        for code in (getattr(each.function, "__code__", None) for each in features)
        if code is not None
    }
    file = str(getattr(module, "__file__", ""))
    for name, (line, later) in _replaced(module, file):
        if (file, line) not in listed:
            raise DefinitionError(
                f"{shown(Path(file))}:{line}: the feature that {name}() makes is lost, as {name}() is "
                f"defined again in line {later}; give one of the functions another name"
            )


def _name_of(use: object) -> str:
    return use.feature if isinstance(use, Selection) else ""


def _replaced(module: ModuleType, file: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The functions of a module's own block that make features and are defined again: the name, and both lines."""
    lines: dict[str, int] = {}
    for node in _functions(module, file):
        line = min(each.lineno for each in node.decorator_list)
        if node.name in lines:
            yield node.name, (lines[node.name], line)
        lines[node.name] = line


def _functions(module: ModuleType, file: str) -> Iterator[ast.FunctionDef]:
    """The functions below `@feature(...)` of a module's own block; none where its text cannot be read."""
    try:
        tree = module_tree(Path(file).read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError):
        return
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(
            _makes_features(each, vars(module)) for each in node.decorator_list
        ):
            yield node


def _makes_features(decorator: ast.expr, names: Mapping[str, Any]) -> bool:
    """Whether a decorator is `@feature(...)`, under whatever name it was imported, or of the module `mlforge`."""
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(function, ast.Name):
        return names.get(function.id) is feature
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return getattr(names.get(function.value.id), function.attr, None) is feature
    return False

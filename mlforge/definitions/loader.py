"""Finds the definitions and imports them, each time afresh."""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from mlforge.core.collection import end_loading
from mlforge.core.paths import path_of
from mlforge.definitions.namesakes import check_none_lost
from mlforge.definitions.placing import placed
from mlforge.definitions.profiles import profile_in
from mlforge.definitions.registry import Definitions
from mlforge.definitions.taken_names import (
    LIBRARY,
    InstalledFirst,
    check_own_names,
    lies_in_folder,
    shown,
)
from mlforge.errors import DefinitionError, DefinitionsNotFound, ExpressionError, MlforgeError

DEFAULT = "definitions.py"
_WAYS = "name others with --definitions module:name or path.py, or with MLFORGE_DEFINITIONS"


@dataclass(frozen=True, slots=True)
class _Imports:
    """The folder of the definitions that were loaded last, the modules of before, and who finds modules for it."""

    folder: Path
    modules: frozenset[str]
    finder: InstalledFirst


_earlier: list[_Imports] = []


@dataclass(frozen=True, slots=True)
class Target:
    """Where definitions are: a file, or a module by its dotted name; `name` picks one of several."""

    file: Path | None
    module: str | None
    name: str | None

    @classmethod
    def parse(cls, text: str | None, here: Path) -> Target:
        """Read `module:name`, `path.py`, `path.py:name` or a folder; None is definitions.py here."""
        if not text:
            return cls(here / DEFAULT, None, None)
        head, _, tail = text.rpartition(":")
        where, name = (head, tail) if head and tail.isidentifier() else (text, None)
        path = here / path_of(where)
        if path.is_dir():
            return cls(path / DEFAULT, None, name)
        if where.endswith(".py") or "/" in where:
            return cls(path, None, name)
        if not all(part.isidentifier() for part in where.split(".")):
            raise DefinitionsNotFound(
                f"{text!r} is neither module:name nor the path of a .py file; {_WAYS}"
            )
        return cls(None, where, name)

    def __str__(self) -> str:
        return shown(self.file) if self.file else f"module {self.module}"


def load(target: str | None, *, here: Path, profile: str | None = None) -> Definitions:
    """Import the definitions that `target` names; None means definitions.py in `here`.

    profile: of the `mlforge.toml` beside them, if not the one that it names as its default.

    The import is fresh each time, also of helper modules beside the definitions, and leaves no
    bytecode behind. Relative sources, stores and roots start from the file's folder; sources from the root
    where one is given.
    Raises DefinitionsNotFound if there is no such file or it does not import, DefinitionError if
    a definition in it is wrong or it does not hold one Definitions, and for a profile that there is not or that
    cannot be filled in; a message names file and line.
    """
    definitions, folder = _written(target, here)
    chosen = profile_in(folder, profile)
    if chosen is None:
        return _located(definitions, folder, target, here)
    located = _located(placed(definitions, chosen), folder, target, here)
    located.profile = chosen.name
    return located


def load_as_written(target: str | None, *, here: Path) -> Definitions:
    """The definitions that `target` names, without any profile: for who needs no more than their functions. Raises as `load`."""
    definitions, folder = _written(target, here)
    return _located(definitions, folder, target, here)


def _written(target: str | None, here: Path) -> tuple[Definitions, Path]:
    """The definitions as their file makes them, and its folder."""
    parsed = Target.parse(target, here.absolute())
    try:
        module, file = _import(parsed, here.absolute())
    finally:
        end_loading()
    definitions = _pick(module, parsed)
    check_none_lost(module, definitions.features.values())
    return definitions, file.parent


def _located(definitions: Definitions, folder: Path, target: str | None, here: Path) -> Definitions:
    located = definitions.located_at(folder)
    located.loaded_from = target, here.absolute()
    return located


def _import(target: Target, here: Path) -> tuple[ModuleType, Path]:
    if target.file is not None and not target.file.is_file():
        raise DefinitionsNotFound(
            f"no definitions at {shown(target.file)}; {_WAYS}; a new project begins with 'mlforge init my_project'"
        )
    folder = target.file.parent if target.file else here
    with _fresh_imports(folder):
        try:
            module = _run_file(target.file) if target.file else _run_module(str(target.module))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, and polars' PanicException, are no Exception
            raise _explained(error, target, folder) from error
    check_own_names(folder)
    if module.__file__ is None:
        raise DefinitionsNotFound(f"{target} is a folder without __init__.py; name a module in it")
    return module, Path(module.__file__)


def _run_file(file: Path) -> ModuleType:
    """Run a file as a module whose name no other file has."""
    name = f"{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = spec_from_file_location(name, file, loader=_SourceLoader(name, str(file)))
    assert isinstance(spec, ModuleSpec)
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _run_module(name: str) -> ModuleType:
    sys.modules.pop(name, None)
    return importlib.import_module(name)


class _SourceLoader(SourceFileLoader):
    """A loader without bytecode cache, which would miss the second of two edits within a second."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


@contextmanager
def _fresh_imports(folder: Path) -> Iterator[None]:
    """Forget the modules that earlier definitions imported, and make modules in the folder importable.

    The folder stays on sys.path: functions may import when they are called.
    """
    for earlier in _earlier:
        for name in set(sys.modules) - earlier.modules:
            loaded = sys.modules.get(name)
            if loaded is not None and lies_in_folder(loaded, earlier.folder):
                del sys.modules[name]
        if str(earlier.folder) in sys.path:
            sys.path.remove(str(earlier.folder))
        if earlier.finder in sys.meta_path:
            sys.meta_path.remove(earlier.finder)
    finder = InstalledFirst(folder)
    _earlier[:] = [_Imports(folder, frozenset(sys.modules), finder)]
    sys.path.insert(0, str(folder))
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()
    wrote, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = wrote


def _pick(module: ModuleType, target: Target) -> Definitions:
    by_name = {
        name: value for name, value in vars(module).items() if isinstance(value, Definitions)
    }
    if target.name is not None:
        if target.name in by_name:
            return by_name[target.name]
        what = (
            f"is {_a(type(vars(module)[target.name]).__name__)}, not a Definitions"
            if target.name in vars(module)
            else "is not there"
        )
        there = f"there is {', '.join(by_name)}" if by_name else "and it holds none"
        raise DefinitionError(f"{target}: {target.name!r} {what}; {there}")
    distinct = {id(value): name for name, value in reversed(by_name.items())}
    if not distinct:
        raise DefinitionError(
            f"{target} holds no Definitions; write defs = Definitions(store=..., features=[...])"
        )
    if len(distinct) > 1:
        names = sorted(distinct.values())
        colon = f"{shown(target.file) if target.file else target.module}:{names[0]}"
        raise DefinitionError(
            f"{target} holds {len(names)} Definitions: {', '.join(names)}; "
            f"pick one with --definitions {colon}"
        )
    return next(iter(by_name.values()))


def _explained(error: BaseException, target: Target, folder: Path) -> MlforgeError:
    """An import's failure in one line: where, and what; below it the expression that is at fault, if one is."""
    try:
        check_own_names(folder, error)
    except DefinitionError as taken_name:
        return taken_name
    missing = isinstance(error, ModuleNotFoundError) and target.module is not None
    if missing and f"{target.module}.".startswith(f"{getattr(error, 'name', None)}."):
        return DefinitionsNotFound(f"no {target}, looked for in {shown(folder)} too; {_WAYS}")
    text = str(error) if isinstance(error, ExpressionError) else " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        where, text = f"{shown(Path(error.filename or ''))}:{error.lineno}", error.msg
    else:
        where = _place(error, folder) or str(target)
    if isinstance(error, MlforgeError):
        return DefinitionError(f"{where}: {text}")
    colon = ": " if text else ""
    return DefinitionsNotFound(f"{where}: does not import: {type(error).__name__}{colon}{text}")


def _place(error: BaseException, folder: Path) -> str | None:
    """`file:line` of the deepest frame that is the user's own."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(folder) and "site-packages" not in frame.filename
    ]
    user_frames = [frame for frame in frames if not Path(frame.filename).is_relative_to(LIBRARY)]
    return (
        f"{shown(Path(user_frames[-1].filename))}:{user_frames[-1].lineno}" if user_frames else None
    )


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"

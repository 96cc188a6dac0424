"""Finds the definitions and imports them, each time afresh."""

from __future__ import annotations

import ast
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

from mlforge.definitions.registry import Definitions
from mlforge.errors import DefinitionError, DefinitionsNotFound, MlforgeError

DEFAULT = "definitions.py"
_WAYS = "name others with --definitions module:name or path.py, or with MLFORGE_DEFINITIONS"


@dataclass(frozen=True, slots=True)
class _Imports:
    """The folder of the definitions that were loaded last, and the modules of before."""

    folder: Path
    modules: frozenset[str]


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
        path = here / Path(where).expanduser()
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
        return _shown(self.file) if self.file else f"module {self.module}"


def load(target: str | None, *, here: Path) -> Definitions:
    """Import the definitions that `target` names; None means definitions.py in `here`.

    The import is fresh each time, also of helper modules beside the definitions, and leaves no
    bytecode behind. Relative sources, stores and roots start from the file's folder; sources from the root
    where one is given.
    Raises DefinitionsNotFound if there is no such file or it does not import, DefinitionError if
    a definition in it is wrong or it does not hold one Definitions; a message names file and line.
    """
    parsed = Target.parse(target, here.absolute())
    module, file = _import(parsed, here.absolute())
    definitions = _pick(module, parsed)
    return definitions.located_at(file.parent)


def _import(target: Target, here: Path) -> tuple[ModuleType, Path]:
    if target.file is not None and not target.file.is_file():
        raise DefinitionsNotFound(f"no definitions at {_shown(target.file)}; {_WAYS}")
    folder = target.file.parent if target.file else here
    with _fresh_imports(folder):
        try:
            module = _run_file(target.file) if target.file else _run_module(str(target.module))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, and polars' PanicException, are no Exception
            raise _explained(error, target, folder) from error
    _check_own_names(folder)
    if module.__file__ is None:
        raise DefinitionsNotFound(f"{target} is a folder without __init__.py; name a module in it")
    return module, Path(module.__file__)


def _check_own_names(folder: Path, error: BaseException | None = None) -> None:
    """Refuse modules that import a name of ours where a module of theirs has it, be it when they are called.

    They would get ours. error: what an import ended with; files on its way are held against it, too.
    """
    taken = {
        name: namesake
        for name in _OUR_PACKAGES
        if name != "mlforge" and (namesake := _namesake(name, folder)) is not None
    }
    if not taken:
        return
    for file in sorted(_own_files(folder, error)):
        for name in sorted(taken.keys() & _imported_names(file)):
            raise DefinitionError(_name_is_taken(name, taken[name], file))


def _own_files(folder: Path, error: BaseException | None) -> set[Path]:
    """The files of the folder's own modules that are loaded, and of those that an error came through."""
    loaded = [
        Path(str(module.__file__))
        for module in list(sys.modules.values())
        if _lies_in_folder(module, folder) and not _is_ours(module)
    ]
    frames = [] if error is None else traceback.extract_tb(error.__traceback__)
    passed = [Path(frame.filename) for frame in frames]
    return {
        file
        for file in [*loaded, *passed]
        if file.suffix == ".py" and file.is_relative_to(folder) and not _is_installed(file, folder)
    }


def _imported_names(file: Path) -> set[str]:
    """The top names of absolute imports anywhere in a file, also within its functions; none of unreadable ones."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return set()
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    of = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {str(name).partition(".")[0] for name in [*plain, *of]}


def _namesake(name: str, folder: Path) -> Path | None:
    """The folder's own module or package of a name, if there is one; our own tree has none."""
    if folder == _HOME:
        return None
    places = (folder / f"{name}.py", folder / name / "__init__.py")
    module = next((place for place in places if place.is_file()), None)
    return module or next(iter(sorted((folder / name).glob("*.py"))), None)


def _name_is_taken(name: str, namesake: Path, importer: Path | None = None) -> str:
    user = f"{_shown(importer)} imports it: " if importer else ""
    return (
        f"{_shown(namesake)}: {user}'import {name}' gives mlforge's own package of that name, not this "
        "module; give the module another name"
    )


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
            if _lies_in(name, earlier.folder):
                del sys.modules[name]
        if str(earlier.folder) in sys.path:
            sys.path.remove(str(earlier.folder))
    _earlier[:] = [_Imports(folder, frozenset(sys.modules))]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    wrote, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = wrote


def _is_ours(module: ModuleType) -> bool:
    """Whether a module is part of this installation, since definitions may lie in our own tree."""
    file = getattr(module, "__file__", None)
    top = str(getattr(module, "__name__", "")).partition(".")[0]
    return top in _OUR_PACKAGES and file is not None and Path(file).is_relative_to(_HOME)


def _lies_in(module: str, folder: Path) -> bool:
    """Whether a loaded module belongs to the folder, and not to this installation."""
    loaded = sys.modules.get(module)
    return loaded is not None and _lies_in_folder(loaded, folder) and not _is_ours(loaded)


def _lies_in_folder(module: ModuleType, folder: Path) -> bool:
    """Whether a module's file lies in the folder, an environment inside it left out."""
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_relative_to(folder):
        return False
    return not _is_installed(Path(file), folder)


def _is_installed(file: Path, folder: Path) -> bool:
    """Whether a file below the folder is of an environment inside it."""
    return bool({"site-packages", "dist-packages"} & set(file.relative_to(folder).parts))


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
        colon = f"{_shown(target.file) if target.file else target.module}:{names[0]}"
        raise DefinitionError(
            f"{target} holds {len(names)} Definitions: {', '.join(names)}; "
            f"pick one with --definitions {colon}"
        )
    return next(iter(by_name.values()))


def _explained(error: BaseException, target: Target, folder: Path) -> MlforgeError:
    """An import's failure in one line: where, and what."""
    try:
        _check_own_names(folder, error)
    except DefinitionError as taken_name:
        return taken_name
    missing = isinstance(error, ModuleNotFoundError) and target.module is not None
    if missing and f"{target.module}.".startswith(f"{getattr(error, 'name', None)}."):
        return DefinitionsNotFound(f"no {target}, looked for in {_shown(folder)} too; {_WAYS}")
    package = str(getattr(error, "name", "")).partition(".")[0]
    if isinstance(error, ImportError) and package in _OUR_PACKAGES:
        namesake = _namesake(package, folder)
        if namesake is not None:
            return DefinitionError(_name_is_taken(package, namesake))
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        where, text = f"{_shown(Path(error.filename or ''))}:{error.lineno}", error.msg
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
    user_frames = [frame for frame in frames if not Path(frame.filename).is_relative_to(_LIBRARY)]
    return (
        f"{_shown(Path(user_frames[-1].filename))}:{user_frames[-1].lineno}"
        if user_frames
        else None
    )


def _shown(path: Path) -> str:
    """The path relative to the current folder, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


_LIBRARY = Path(__file__).parent.parent
_HOME = _LIBRARY.parent
_OUR_PACKAGES = ("mlforge", "worker")

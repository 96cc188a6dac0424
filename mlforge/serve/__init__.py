"""The HTTP server of a project: an ASGI application, `mlforge.serve:app`, and the process that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlforge.serve.app import App

    app: App


def __getattr__(name: str) -> Any:
    """`app`, made when an ASGI server first asks for it: of the definitions that the environment names."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlforge.serve.server import app_of_environment

    globals()["app"] = app_of_environment()
    return globals()["app"]

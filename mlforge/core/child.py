"""Processes that mlforge starts for itself: `python -m mlforge.core.child MODULE ...` is one that runs the module's `main`."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

from mlforge.core.collection import loading


def command(module: str, *arguments: str) -> tuple[str, ...]:
    """The command of a process that runs `main` of a module with these arguments, which returns the exit code.

    Nothing of the folder that it is started in is imported.
    """
    return (sys.executable, "-P", "-m", __name__, module, *arguments)


def main(module: str, *arguments: str) -> int:
    """Run `main` of a module with these arguments; returns its exit code.

    A terminal's Ctrl-C reaches this process, too: whoever started it tells of that.
    """
    try:
        with loading():
            code: int = import_module(module).main(*arguments)
            return code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

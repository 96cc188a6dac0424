"""`python -m mlforge` is the command line."""

import os
import sys
from pathlib import Path


def leave_the_folder_out() -> None:
    """Take the current folder, which `python -m` puts first, off the path: its `worker.py` is not ours.

    It stays where this package is imported from it, as in a checkout that is not installed.
    """
    here = os.getcwd()  # noqa: PTH109 - as `python -m` spells it
    ours = Path(__file__).resolve().parent.parent == Path(here).resolve()
    if not sys.flags.safe_path and sys.path[:1] == [here] and not ours:
        del sys.path[0]


if __name__ == "__main__":
    leave_the_folder_out()

    from mlforge.cli import main

    sys.exit(main())

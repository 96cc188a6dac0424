"""The process that `apart` starts: `python -m mlforge.store.objects.apart_child`, the order on its standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mlforge.errors import MlforgeError
from mlforge.store.objects.bucket import Bucket
from mlforge.store.objects.identity import Identity


def main() -> None:
    """Read the order, do it, and print null, or the error."""
    order = json.loads(sys.stdin.read())
    answer = None
    try:
        Identity(Bucket(**order["bucket"]), Path(order["cache"])).ask_here(order["deed"])
    except MlforgeError as error:
        answer = {"kind": type(error).__name__, "message": str(error)}
    sys.stdout.write(f"{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()

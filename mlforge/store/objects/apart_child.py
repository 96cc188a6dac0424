"""The process that `apart` starts, with the order on its standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mlforge.errors import MlforgeError
from mlforge.store.objects.bucket import Bucket
from mlforge.store.objects.identity import Identity


def main() -> int:
    """Read the order, do it, and print null, or the error; returns the exit code."""
    order = json.loads(sys.stdin.read())
    answer = None
    try:
        Identity(Bucket(**order["bucket"]), Path(order["cache"])).ask_here(order["deed"])
    except MlforgeError as error:
        answer = {"kind": type(error).__name__, "message": str(error)}
    sys.stdout.write(f"{json.dumps(answer)}\n")
    return 0

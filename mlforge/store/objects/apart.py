"""Questions to a bucket in a process of its own, for processes that fork later: the client does not survive a fork."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from mlforge import errors
from mlforge.errors import StoreError

_CHILD = "mlforge.store.objects.apart_child"  # by its name: it makes a store, and stores import this module
_TIMEOUT_S = 120


def ask(deed: str, arguments: dict[str, Any]) -> None:
    """Call `establish` or `identity` of a store in a process of its own; what it learns lies in the cache then.

    arguments: those of ObjectStore, as JSON has them. Raises what the call raises, and StoreError if it does not end.
    """
    order = json.dumps({"deed": deed, "arguments": arguments})
    try:
        ended = subprocess.run(
            [sys.executable, "-m", _CHILD],
            input=order,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        answer = json.loads(ended.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise StoreError(
            f"{arguments['url']}: a process that asks for its identity does not end well; try again"
        ) from error
    if answer is not None:
        raise getattr(errors, answer["kind"], StoreError)(answer["message"])

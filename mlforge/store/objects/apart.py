"""Questions to a bucket in a process of its own, for processes that fork later: the client does not survive a fork."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mlforge import errors
from mlforge.core import child
from mlforge.errors import StoreUnavailable

_CHILD = "mlforge.store.objects.apart_child"
_TIMEOUT_S = 120


def ask(deed: str, url: str, options: Mapping[str, str] | None, cache: Path) -> None:
    """Have the identity of the store in a bucket fetched into its folder of the cache, or with "establish" made.

    Raises what asking raises, and StoreUnavailable if it does not end.
    """
    bucket = {"url": url, "options": dict(options) if options else None}
    order = json.dumps({"deed": deed, "bucket": bucket, "cache": str(cache)})
    try:
        ended = subprocess.run(
            child.command(_CHILD),
            input=order,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        answer = json.loads(ended.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise StoreUnavailable(
            f"{url}: a process that asks for its identity does not end well; try again"
        ) from error
    if answer is not None:
        raise getattr(errors, answer["kind"], StoreUnavailable)(answer["message"])

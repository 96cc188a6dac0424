"""Settings that the environment holds: the server's URL, the profile's name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mlforge.errors import MlforgeError

REDIS_URL, REDIS_URL_FILE = "REDIS_URL", "REDIS_URL_FILE"
PROFILE, PROFILES_FILE = "MLFORGE_PROFILE", "mlforge.toml"
"""The variable that names a profile, and the file beside the definitions that holds them."""


def redis_url(environment: Mapping[str, str] = os.environ) -> str | None:
    """The URL in REDIS_URL, else in the file that REDIS_URL_FILE names, which keeps it out of the environment.

    Raises MlforgeError if that file cannot be read, or is empty.
    """
    url, file = environment.get(REDIS_URL), environment.get(REDIS_URL_FILE)
    if url or not file:
        return url or None
    try:
        held = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise MlforgeError(
            f"{REDIS_URL_FILE}={file} cannot be read ({error}); name a file that holds the URL alone"
        ) from error
    if not held:
        raise MlforgeError(
            f"{REDIS_URL_FILE}={file} is empty; name a file that holds the URL alone"
        )
    return held

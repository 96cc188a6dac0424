"""The process that `mlforge.sources.reading_process` starts: requests for files arrive on stdin, what they hold leaves on stdout."""

from __future__ import annotations

import os
import sys

from mlforge.core.collection import end_loading
from mlforge.sources.decoded_files import bytes_of_each, decoded
from mlforge.sources.reading_process import requests, send


def main() -> int:
    """Answer requests until whoever makes them has none left, or is gone."""
    end_loading()
    for files, max_bytes in requests(sys.stdin.buffer):
        send(sys.stdout.buffer, files, decoded(bytes_of_each(files, max_bytes), max_bytes))
    os._exit(0)  # threads of the reader's that still run at the end would abort the process

"""The process that `mlforge.sources.sandbox` starts: a file's bytes arrive on stdin, its table leaves on stdout."""

from __future__ import annotations

import json
import os
import sys

import pyarrow as pa

from mlforge.errors import UnreadableFile
from mlforge.sources.parquet_reader import table_of
from mlforge.sources.sandbox import REFUSED


def main(path: str, max_bytes: str) -> int:
    """Decode the parquet bytes on the standard input; the path appears only in messages."""
    try:
        table = table_of(sys.stdin.buffer.read(), path, int(max_bytes) if max_bytes else None)
    except UnreadableFile as error:
        sys.stdout.write(json.dumps(str(error)))
        return REFUSED
    with pa.ipc.new_stream(sys.stdout.buffer, table.schema) as stream:
        stream.write_table(table)
    return 0


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of the reader's that still run at the end would abort the process

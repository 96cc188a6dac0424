"""`python -m benchmarks.many_files`: what a list of so many source files costs a version, written, read back and written again with one more.

No measure of the table: a simulation for the page "Scale". The files are made up: entries of a manifest with hashes that no file has, through
the code that writes and reads a local store's manifests. CPU seconds of one process, and its peak memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import polars as pl

from mlforge import Definitions, feature
from mlforge.core.manifest import Manifest
from mlforge.core.values import TimeRange
from mlforge.metrics import Rolling
from mlforge.store import LocalStore
from mlforge.store.local.manifest_chunks import ManifestChunks
from mlforge.store.local.manifests import read_manifest

T = TypeVar("T")


def main() -> None:
    """Print what each number of files takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    for files in parser.parse_args().files:
        with tempfile.TemporaryDirectory() as folder:
            _look(Path(folder), files)


def _look(folder: Path, files: int) -> None:
    manifest = _manifest(folder, files + 1)
    before = replace(manifest, partials=manifest.partials[:-1], sources=manifest.sources[:-1])
    path, chunks = folder / "meta.json", ManifestChunks(folder / "lineage")
    first, document = _timed(lambda: chunks.written(before))
    path.write_text(json.dumps(document), encoding="utf-8")
    cold = ManifestChunks(folder / "lineage")
    read, known = _timed(lambda: read_manifest(path, json.loads(path.read_text()), cold))
    assert known.sources == before.sources
    warm, _ = _timed(lambda: chunks.written(manifest))
    pieces = [each.stat().st_size for each in (folder / "lineage").iterdir()]
    print(
        f"{files:,} files: {sum(pieces) / 1e6:.0f} MB in {len(pieces):,} pieces, {path.stat().st_size / 1e6:.2f} MB a version; "
        f"first written {first:.1f} s, read by a new process {read:.1f} s, one file more {warm:.2f} s; "
        f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
    )


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def _manifest(folder: Path, files: int) -> Manifest:
    """A version's manifest with so many made-up files in the place of its one."""
    (folder / "events").mkdir()
    frame = pl.DataFrame({"user": [1], "at": [0], "amount": [1.0]})
    frame.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC"))).write_parquet(
        folder / "events" / "0.parquet"
    )
    spend = feature(
        keys=["user"],
        source="events/",
        timestamp="at",
        metrics=[Rolling("7d", {"amount": "sum"})],
        name="spend",
    )(lambda df: df)
    result = Definitions(LocalStore(folder / "store"), [spend], root=folder).refresh("spend")
    assert result.manifest is not None
    [partial], [source] = result.manifest.partials, result.manifest.sources
    hashes = [hashlib.sha256(f"{number}".encode()).hexdigest() for number in range(files)]
    return replace(
        result.manifest,
        partials=tuple(
            partial._replace(hash=hash_, times=TimeRange(number, number + 1_000))
            for number, hash_ in enumerate(hashes)
        ),
        sources=tuple(
            source._replace(path=f"2026/11/29/{number:09}.parquet", hash=hash_[::-1], partial=hash_)
            for number, hash_ in enumerate(hashes)
        ),
    )


if __name__ == "__main__":
    main()

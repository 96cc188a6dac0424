"""`python -m benchmarks`: run measures and print one table."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    aggregations,
    all_time,
    blast,
    buckets,
    builds,
    chains,
    cliffs,
    clusters,
    dense,
    derived,
    drops,
    freshness,
    hot,
    large_sets,
    peaks,
    profiles,
    pushes,
    reads,
    serving,
    serving_drops,
    sharing,
    starts,
    training,
)
from benchmarks.data import SIZES
from benchmarks.harness import HEAD, Bench, Measure, Row, WrongResult
from benchmarks.timing import quiet

_MODULES = (
    drops,
    buckets,
    chains,
    clusters,
    freshness,
    builds,
    pushes,
    reads,
    serving,
    serving_drops,
    training,
    peaks,
    starts,
    dense,
    hot,
    cliffs,
    sharing,
    aggregations,
    all_time,
    blast,
    large_sets,
    derived,
    profiles,
)


def measures() -> dict[str, Measure]:
    """Every measure by its number, in order."""
    by_number = {measure.number: measure for module in _MODULES for measure in module.MEASURES}
    return dict(sorted(by_number.items(), key=lambda item: (int(item[0].rstrip("bc")), item[0])))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 1 if some measure's results were wrong, 0 also where targets are missed."""
    known = measures()
    options = _parser(known).parse_args(arguments)
    unknown = [number for number in options.only or () if number not in known]
    if unknown:
        sys.stderr.write(f"no measure {', '.join(unknown)}; there are {', '.join(known)}\n")
        return 2
    quiet()
    rows: list[Row] = []
    failed = False
    chosen = [known[number] for number in options.only or known]
    with _bench(options) as bench:
        for measure in chosen:
            begun = time.monotonic()
            _say(f"{measure.number:>3}  {measure.name} ...")
            try:
                rows += measure.run(bench)
            except WrongResult as wrong:
                failed = True
                _say(f"     WRONG: {wrong}")
            bench.clear()
            _say(f"     {time.monotonic() - begun:.0f} s")
    print(f"{_where()}, {bench.size.events:,} events, repeat {bench.repeat}")
    print()
    print(_markdown(rows) if options.markdown else _aligned(rows))
    return 1 if failed else 0


def _bench(options: argparse.Namespace) -> Bench:
    return Bench(SIZES[options.size], options.dir, options.repeat, options.engine, options.feast)


def _parser(known: dict[str, Measure]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure mlforge against references, by turns, in one run.",
        epilog="\n".join(f"{m.number:>3}  {m.name} ({m.target})" for m in known.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=SIZES, default="default", help="how much data")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), metavar="1,5,...", help="these measures alone"
    )
    parser.add_argument("--repeat", type=_at_least_one, default=3, metavar="N", help="rounds")
    parser.add_argument(
        "--engine", choices=["polars", "duckdb"], default="polars", help="where one is to be chosen"
    )
    parser.add_argument(
        "--feast", metavar="PYTHON", help="of an environment with feast[redis], for measure 15b"
    )
    parser.add_argument(
        "--dir",
        type=lambda text: Path(text).absolute(),
        default=Path(tempfile.gettempdir()) / "mlforge-benchmarks",
        help="where generated data is kept, and runs do their work (default: %(default)s)",
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _where() -> str:
    import os

    return f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} CPUs"


def _aligned(rows: Sequence[Row]) -> str:
    lines = [HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _markdown(rows: Sequence[Row]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())

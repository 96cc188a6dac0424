"""Measure 9: peak memory."""

from __future__ import annotations

from benchmarks import data
from benchmarks.harness import MEGABYTES, Bench, Measure, Row, Target, check
from benchmarks.memory import LEAN, LIMIT, Task
from benchmarks.project import NAME, Project, Stores

ENGINES = ("polars", "duckdb")


def _run(bench: Bench) -> list[Row]:
    project = Project.over(bench, bench.history())
    stores = {engine: project.stores(engine) for engine in ENGINES}
    rows = [
        _row(f"full build on {engine}", _task(bench, project, stores[engine], engine, "build").run(), LIMIT)
        for engine in ENGINES
    ]  # fmt: skip
    engine = bench.engine
    own = stores[engine]
    for name, what, spine in (
        ("push", "push of everything", 0),
        ("refresh", "refresh after a drop", 0),
        ("push", "push after a drop", 0),
        ("training", f"training data for {bench.size.spines[0]:,} rows", bench.size.spines[0]),
    ):
        if name == "refresh":
            data.put(data.drop(bench.size, 0), project.source / "drop-000000.parquet")
        rows.append(_row(what, _task(bench, project, own, engine, name, spine).run(), LEAN))
    served = own.definitions.store.resolve(NAME)
    check(
        served.row_count == bench.size.events + bench.size.drop,
        f"the children made {served.row_count:,} rows",
    )
    return rows


def _task(
    bench: Bench, project: Project, stores: Stores, engine: str, name: str, spine: int = 0
) -> Task:
    return Task(
        name,
        str(project.folder),
        str(stores.path),
        stores.prefix,
        bench.url,
        engine,
        bench.size.name,
        spine,
    )


def _row(what: str, peak: int, limit: int) -> Row:
    return Row(
        "9", f"peak memory: {what}", "", "above the imports", [peak], Target(limit, MEGABYTES)
    )


MEASURES = (
    Measure(
        "9",
        "peak memory of builds, refresh, push and training",
        "builds <= 2 GB, else <= 300 MB",
        _run,
    ),
)

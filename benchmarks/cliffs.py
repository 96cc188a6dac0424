"""Measures 12b, 19, 20, 21: very many files, sources and versions, each against few of them."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import data
from benchmarks.drops import Feed, drops_by_turns
from benchmarks.freshness import until
from benchmarks.harness import (
    MILLISECONDS,
    PERCENT,
    SECONDS,
    Bench,
    Measure,
    Row,
    Target,
    check,
    median_of,
    ratios,
)
from benchmarks.project import NAME, Project, Stores, stores_at
from benchmarks.timing import seconds
from worker.reconcile.audit_scheduler import AT_ONCE, REST_PROVEN

_MLFORGE = [sys.executable, "-P", "-m", "mlforge"]
_EVENTS_A_FILE = 100
_TICKS = os.sysconf("SC_CLK_TCK")
_SOURCES = """
import polars as pl

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore


def rows(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "event_time", "amount")


defs = Definitions(
    LocalStore("feature_store"),
    [
        feature(
            name=f"f{number}", keys=["user_id"], source=f"f{number}/", timestamp="event_time",
            metrics=[Rolling(["7d"], {"amount": ["sum"]})],
        )(rows)
        for number in range(COUNT)
    ],
)
"""


def _sparse(bench: Bench) -> Bench:
    """The run with so few events that files, not rows, are what costs."""
    events = bench.size.most_files * _EVENTS_A_FILE
    return bench.of_size(replace(bench.size, events=min(events, bench.size.events)))


def _most_files(plain: Bench) -> list[Row]:
    bench = _sparse(plain)
    many, few = bench.history(bench.size.most_files), bench.history()
    feeds = [Feed.over(Project.over(bench, files)) for files in (many, few)]
    ours, reference = drops_by_turns(bench, feeds)
    feeds[0].is_told = False
    whole, _ = drops_by_turns(bench, feeds)
    against = f"onto the same in {len(few):,} files: {median_of(reference, MILLISECONDS)}"
    return [
        Row("12b", f"drop onto {len(many):,} files", median_of(ours, MILLISECONDS), against,
            ratios(ours, reference), Target(1.5)),
        Row("12b", "the same, all files looked at", median_of(whole, MILLISECONDS), against,
            ratios(whole, reference)),
    ]  # fmt: skip


def _start(plain: Bench) -> list[Row]:
    """The first build, the first drop of a process that knows nothing, and the list of versions."""
    bench = _sparse(plain)
    many, few = (
        Project.over(bench, files)
        for files in (bench.history(bench.size.most_files), bench.history())
    )
    stores = [project.stores() for project in (many, few)]
    built = [seconds(partial(each.definitions.refresh, NAME)) for each in stores]
    for number in range(bench.size.drops_a_round):
        for project, each in zip((many, few), stores, strict=True):
            data.put(data.drop(bench.size, number), project.source / f"drop-{number}.parquet")
            each.definitions.refresh(NAME)
    again = [
        seconds(partial(_first_drop, project, each))
        for project, each in zip((many, few), stores, strict=True)
    ]
    listed = [seconds(partial(_versions, each)) for each in stores]
    count = f"{bench.size.most_files:,} files"
    fewer = f"the same events in {bench.size.files:,}"
    return [
        Row("19", f"first build of {count}", *_pair(built, fewer), [built[0] / built[1]]),
        Row("19", f"first drop of a new process, {count}", *_pair(again, fewer), [again[0]],
            Target(3.0, SECONDS)),
        Row("19", f"mlforge versions, {count}", *_pair(listed, fewer), [listed[0]],
            Target(1.0, SECONDS)),
    ]  # fmt: skip


def _pair(times: list[float], reference: str) -> tuple[str, str]:
    return SECONDS.of(times[0]), f"{reference}: {SECONDS.of(times[1])}"


def _first_drop(project: Project, stores: Stores) -> None:
    """The first drop after a restart: nothing is in memory."""
    anew = stores_at(
        project.folder, stores.path, project.bench.url, stores.prefix, project.feature, "polars"
    )
    number = project.bench.size.drops_a_round
    data.put(data.drop(project.bench.size, number), project.source / f"drop-{number}.parquet")
    result = anew.definitions.refresh(NAME)
    check(result.changed, f"the drop after a restart was {result.reason}")
    anew.definitions.close()


def _versions(stores: Stores) -> None:
    command = [*_MLFORGE, "versions", NAME, "--store", str(stores.path), "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    check(len(json.loads(answer.stdout)["versions"]) > 1, "versions are not all listed")


def _many_versions(bench: Bench) -> list[Row]:
    """One file and one build at a time; nobody prunes."""
    size = replace(bench.size, events=bench.size.builds * _EVENTS_A_FILE)
    project = Project.over(bench, ())
    stores = project.stores()
    times: list[float] = []
    for number in range(size.builds):
        first = number * _EVENTS_A_FILE
        frame = data.events(size, first, first + _EVENTS_A_FILE)
        data.put(frame, project.source / f"{number:06d}.parquet")
        times.append(seconds(partial(stores.definitions.build, NAME)))
    few = max(1, min(50, size.builds // 3))
    first_ones, last_ones = times[:few], times[-few:]
    # The first builds evaluate windows that have not yet the events of thirty days.
    full = size.builds * (data.WINDOW_DAYS + 1) // size.days
    like = times[full : full + few]
    listed, helped = seconds(partial(_versions, stores)), seconds(_help)
    return [
        Row(
            "21",
            f"{size.builds:,} builds of a new file each: the last {few}",
            median_of(last_ones, MILLISECONDS),
            f"the first {few}: {median_of(first_ones, MILLISECONDS)}",
            [statistics.median(last_ones) / statistics.median(first_ones)],
            Target(1.2),
        ),
        Row(
            "21",
            "the same",
            median_of(last_ones, MILLISECONDS),
            f"the first {few} with full windows: {median_of(like, MILLISECONDS)}",
            [statistics.median(last_ones) / statistics.median(like)],
        ),
        Row(
            "21",
            f"mlforge versions, {size.builds:,} versions",
            SECONDS.of(listed),
            f"mlforge --help: {SECONDS.of(helped)}",
            [listed],
            Target(1.0, SECONDS),
        ),
    ]


def _help() -> None:
    subprocess.run([*_MLFORGE, "--help"], capture_output=True, check=True)


def _idle(bench: Bench) -> list[Row]:
    """The share of a core that `mlforge up` takes once nothing is left to do, all of its processes together."""
    many, few = _at_rest(bench, bench.size.sources), _at_rest(bench, 1)
    return [
        Row(
            "20",
            f"{bench.size.sources} features, {bench.size.sources} folders, at rest",
            f"{PERCENT.of(many.share)} of a core, {many.grown_kb:+,} kB meanwhile, and {PERCENT.of(many.audits)} for audits",
            f"one feature: {PERCENT.of(few.share)} and {PERCENT.of(few.audits)}",
            [many.share + many.audits],
            Target(0.02, PERCENT),
        )
    ]


@dataclass(frozen=True, slots=True)
class _AtRest:
    """The share of a core that a project takes at rest, how many kB it grew meanwhile, and the share that its audits take.

    An audit takes all of a core for a second or two, then none for minutes: whether it falls into a minute or not would be all that is measured.
    """

    share: float
    grown_kb: int
    audits: float


def _at_rest(bench: Bench, sources: int) -> _AtRest:
    root = bench.new_folder("idle")
    for number in range(sources):
        folder = root / f"f{number}"
        folder.mkdir()
        data.put(data.events(bench.size, number, number + 2), folder / "a.parquet")
    (root / "definitions.py").write_text(_SOURCES.replace("COUNT", str(sources)))
    environment = {name: text for name, text in os.environ.items() if name != "REDIS_URL"}
    subprocess.run([*_MLFORGE, "build"], cwd=root, env=environment, capture_output=True, check=True)
    up = subprocess.Popen(
        [*_MLFORGE, "up", "--audit-every=0"],
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        until((root / ".mlforge" / "up.json").exists)  # whoever asks before starts in vain
        until(lambda: _is_ready(root, environment), within_s=600.0)
        # Meanwhile workers read what the next job of each feature may need.
        time.sleep(bench.size.rest_s / 2)
        before, kept, began = _cpu_s(up.pid), _resident_kb(up.pid), time.monotonic()
        time.sleep(bench.size.rest_s)
        used, passed = _cpu_s(up.pid) - before, time.monotonic() - began
        grown_kb = _resident_kb(up.pid) - kept
        return _AtRest(used / passed, grown_kb, _audits_share(root, environment, sources))
    finally:
        up.terminate()
        up.wait()


def _audits_share(root: Path, environment: Mapping[str, str], sources: int) -> float:
    """The share of a core that a process of audits takes with the pause behind it, where all that is served is proven."""
    names = [f"f{number}" for number in range(min(sources, AT_ONCE))]
    code = "import sys; from worker.reconcile.audit_scheduler import main; main(sys.argv[1:])"
    url = json.loads((root / ".mlforge" / "up.json").read_text())["url"]
    before, began = _cpu_of_children_s(), time.monotonic()
    audit = subprocess.run(
        [sys.executable, "-P", "-c", code, *names],
        cwd=root,
        env={**environment, "REDIS_URL": url},
        capture_output=True,
        text=True,
        check=True,
    )
    passed = time.monotonic() - began
    check(names[0] in audit.stdout.split(), "nothing was audited")
    return (_cpu_of_children_s() - before) / (passed * (1 + REST_PROVEN))


def _cpu_of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _is_ready(root: Path, environment: Mapping[str, str]) -> bool:
    answer = subprocess.run(
        [*_MLFORGE, "status", "--json"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        features = json.loads(answer.stdout)["features"]
    except ValueError:
        return False
    time.sleep(1.0)
    return all(feature["state"] == "ready" for feature in features)


def _tree(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(_fields(path)[1])
        except OSError:
            continue
    tree = [pid]
    for each in tree:
        tree += [child for child, parent in parents.items() if parent == each]
    return tree


def _fields(path: Path) -> list[str]:
    """The fields of `/proc/<pid>/stat` behind the name, from the state on."""
    return path.read_text().rpartition(")")[2].split()


def _cpu_s(pid: int) -> float:
    """CPU seconds of a tree of processes, with those that have ended and were waited for."""
    ticks = 0
    for each in _tree(pid):
        ticks += sum(map(int, _fields(Path(f"/proc/{each}/stat"))[11:15]))
    return ticks / _TICKS


def _resident_kb(pid: int) -> int:
    pages = sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) for p in _tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000


MEASURES = (
    Measure("12b", "a drop beside very many files, against one beside a few", "<= 1.5x", _most_files),
    Measure("19", "very many files: first build, restart, versions", "<= 3 s, <= 1 s", _start),
    Measure("20", "very many sources at rest, as a share of a core", "<= 2%", _idle),
    Measure("21", "very many builds: the last against the first", "<= 1.2x, <= 1 s", _many_versions),
)  # fmt: skip

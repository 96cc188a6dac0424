"""A small shop whose files arrive one by one, and what mlforge makes of each.

    python examples/shop/demo.py [--keep DIR]

Runs the real thing on a copy of this example: `mlforge up` with its server, watcher and workers.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import redis
from generate import Day, days, drop, write

from mlforge import get_online_features, get_training_data
from mlforge.core.text import bump_word
from mlforge.core.values import from_us
from mlforge.errors import MlforgeError
from mlforge.online import RedisStore
from mlforge.serve.server import HOST, PORT
from mlforge.store import LocalStore
from worker.child_process import bound_to_parent
from worker.state.event_log import Entry, EventLog
from worker.state.work_queue import WorkQueue

HERE = Path(__file__).parent
ENTITIES = {
    "user_spend": "user_id",
    "user_peaks": "user_id",
    "merchant_daily": "merchant_id",
    "user_profile": "user_id",
    "product_embedding": "product_id",
}
FED_BY = {"transactions": ["user_spend", "merchant_daily"], "profiles": ["user_profile"]}
MADE_FROM = {"user_spend": ["user_peaks"]}  # a version of the one is a drop for the others
PAGE = f"http://{HOST}:{PORT}"
PATIENCE_S = 30.0
PAUSE_S = 0.7  # in a terminal, for the eye to follow
COLUMNS = (  # title, width, right-aligned
    ("feature", 17, False),
    ("version", 14, False),
    ("bump", 5, False),
    ("reason", 12, False),
    ("recomputed", 10, True),
    ("pushed", 6, True),
    ("online after", 12, True),
)


class Trouble(Exception):
    """Something did not happen in time."""


@dataclass(frozen=True)
class Act:
    """One drop: what is done to which file, and whose rows must show it."""

    title: str
    why: str
    file: str
    play: Callable[[Path], object]
    witnesses: Mapping[str, object]  # feature -> an entity whose online row changes


@dataclass(frozen=True)
class Outcome:
    """What became of a drop for one feature, and when its witness was seen in Redis."""

    entry: Entry
    seen_ms: float | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="play in this new folder")
    folder = parser.parse_args().keep or Path(tempfile.mkdtemp(prefix="mlforge-demo-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        play(folder.absolute())
    except (Trouble, MlforgeError) as trouble:
        print(red(f"\n{trouble}"), file=sys.stderr)
        print(f"The log: {folder / 'up.log'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped. The folder stays: {folder}", file=sys.stderr)
        return 130
    return 0


def play(folder: Path) -> None:
    """The whole play."""
    started = time.monotonic()
    now = datetime.now(UTC)
    *history, yesterday, today = days(60, now)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Trouble(f"{folder} is not empty; name a new folder")
    shutil.copy(HERE / "definitions.py", folder)
    data = folder / "data"
    for day in history:
        write(data, day)

    print(bold("A small shop whose files arrive one by one\n"))
    print(f"   history   {len(history)} days of purchases and profiles, up to {history[-1].date}")
    print(f"   folder    {folder}")
    with up(folder) as url:
        stage = Stage(folder, url)
        print("   running   server, watcher and workers, by " + bold("mlforge up") + "\n")
        first = stage.wait_for(ENTITIES, after="0", since=time.perf_counter())
        print(bold("   First build"))
        print_outcomes({}, first)
        for number, act in enumerate(acts(data, yesterday, today), start=1):
            stage.perform(number, act)
        epilogue(stage)
    print(f"\n   All processes are stopped. It took {time.monotonic() - started:.0f} s.\n")
    farewell(folder)


def acts(data: Path, yesterday: Day, today: Day) -> Iterator[Act]:
    """The drops, in order; each is made when the one before it is over."""
    purchases = yesterday.transactions
    name = f"transactions/{yesterday.date}.parquet"
    known = purchases.with_row_index("row").filter(
        pl.col("kind") == "sale",
        pl.col("event_time").dt.date() == yesterday.date,
        pl.all_horizontal(pl.col("user_id", "amount").is_not_null()),
    )
    row, buyer, merchant = known.row(0)[:3]
    witnesses = {"user_spend": buyer, "user_peaks": buyer, "merchant_daily": merchant}
    yield Act(
        "A day of purchases arrives",
        f"{purchases.height} rows of one day; user_peaks is made from user_spend, so it follows",
        name,
        lambda path: drop(purchases, path),
        witnesses,
    )

    profiles = yesterday.profiles
    yield Act(
        "Customers change their plans",
        f"{profiles.height} rows, for another feature",
        f"profiles/{yesterday.date}.parquet",
        lambda path: drop(profiles, path),
        {},
    )

    late = known.head(3).drop("row").with_columns(pl.col("event_time") - timedelta(days=5))
    yield Act(
        "Late rows",
        "3 purchases of five days before, reported now: only what they reach is recomputed",
        "transactions/late.parquet",
        lambda path: drop(late, path),
        witnesses,
    )

    amended = purchases.with_columns(
        amount=pl.when(pl.int_range(pl.len()) == row)
        .then(pl.col("amount") + 100)
        .otherwise("amount")
    )
    yield Act(
        "An amended file",
        f"the first file again, one amount of customer {buyer} corrected: one row changed",
        name,
        lambda path: drop(amended, path),
        witnesses,
    )

    yield Act(
        "A removed file",
        "the late rows were a mistake: their windows are computed again without them",
        "transactions/late.parquet",
        Path.unlink,
        witnesses,
    )

    yield Act(
        "The same file again",
        "written anew, the same rows: nothing changed, no version, so nothing for user_peaks",
        name,
        lambda path: drop(amended, path),
        {},
    )

    yield Act(
        "A corrupt file",
        "set aside in the books with its reason; the file stays where it is",
        "transactions/broken.parquet",
        lambda path: corrupt(purchases, path),
        {},
    )

    yield Act(
        "And everything goes on",
        "today's purchases so far; in merchant_daily a day shows online once it is over",
        f"transactions/{today.date}.parquet",
        lambda path: drop(today.transactions, path),
        {},
    )


def corrupt(frame: pl.DataFrame, path: Path) -> None:
    """Drop a file whose description of its columns is torn."""
    hidden = drop(frame, path.with_name(f".{path.name}.torn"))
    content = bytearray(hidden.read_bytes())
    length = int.from_bytes(content[-8:-4], "little")
    content[-8 - length : -8] = bytes(length)
    hidden.write_bytes(content)
    hidden.replace(path)


class Stage:
    """The running pipeline, as the demo sees it: a folder, a store, a server, a journal."""

    def __init__(self, folder: Path, url: str) -> None:
        self.data = folder / "data"
        self.store = LocalStore(folder / "feature_store")
        self.online = RedisStore.from_url(url)
        client = redis.Redis.from_url(url)
        # All that a project keeps in Redis is named after its store.
        scope = self.store.establish().id
        self.event_log = EventLog(client, scope)
        self.work_queue = WorkQueue(client, scope)

    def perform(self, number: int, act: Act) -> None:
        """Play one drop and show what became of it."""
        path = self.data / act.file
        features = FED_BY[Path(act.file).parts[0]]
        self.settle()
        if sys.stdout.isatty():
            time.sleep(PAUSE_S)
        before = {name: self.served(name) for name in ENTITIES}
        rows = {name: self.row(name, entity) for name, entity in act.witnesses.items()}
        after = self.event_log.last_id()
        print(f"\n{bold(f'{number:2} {act.title}')}   {cyan(f'data/{act.file}')}")
        print(dim(f"   {act.why}"))
        act.play(path)
        since = time.perf_counter()
        outcomes = self.wait_for(features, after, since, act.witnesses, rows)
        print_outcomes(before, outcomes)

    def wait_for(
        self,
        features: Iterable[str],
        after: str,
        since: float,
        witnesses: Mapping[str, object] | None = None,
        rows: Mapping[str, object] | None = None,
    ) -> dict[str, Outcome]:
        """Wait until each feature has told how it went and each witness's row has changed.

        A feature with a new version is a drop: those that are made from it are waited for, too.
        """
        witnesses, rows = witnesses or {}, rows or {}
        entries: dict[str, Entry] = {}
        seen: dict[str, float] = {}
        while not entries.keys() >= {*reached(features, entries)} or len(seen) < len(witnesses):
            if time.perf_counter() - since > PATIENCE_S:
                late = sorted({*reached(features, entries)} - {*entries} | {*witnesses} - {*seen})
                raise Trouble(f"nothing came of {', '.join(late)} within {PATIENCE_S:.0f} s")
            for name, entity in witnesses.items():
                if name not in seen and self.row(name, entity) != rows[name]:
                    seen[name] = (time.perf_counter() - since) * 1000
            for entry in self.event_log.read(after):
                after = entry.id
                if entry.feature and entry.kind != "definitions" and not waits(entry):
                    entries.setdefault(entry.feature, entry)
            time.sleep(0.001)
        return {name: Outcome(entries[name], seen.get(name)) for name in reached(features, entries)}

    def settle(self) -> None:
        """Wait until no work is wanted, queued or going on."""
        since = time.perf_counter()
        while any(ticket.behind or ticket.leased for ticket in self.work_queue.read(ENTITIES)):
            if time.perf_counter() - since > PATIENCE_S:
                raise Trouble(f"the workers are still busy after {PATIENCE_S:.0f} s")
            time.sleep(0.01)

    def served(self, feature: str) -> str:
        return str(self.store.read_metadata(feature).version)

    def row(self, feature: str, entity: object) -> object:
        return self.online.read(feature, {ENTITIES[feature]: entity})


def reached(features: Iterable[str], entries: Mapping[str, Entry]) -> list[str]:
    """The features that a drop reaches: these, and below one with a new version what is made of it."""
    names: list[str] = []
    for name in features:
        below = MADE_FROM.get(name, []) if changed(entries.get(name)) else []
        names += [other for other in (name, *below) if other not in names]
    return names


def changed(entry: Entry | None) -> bool:
    """Whether the entry tells of a new version."""
    return entry is not None and bool(entry.details.get("changed"))


def waits(entry: Entry) -> bool:
    """Whether the feature was looked at before there was anything to make it from."""
    return entry.kind == "refreshed" and entry.details["version"] is None


told_of: set[str] = set()


def print_outcomes(before: Mapping[str, str], outcomes: Mapping[str, Outcome]) -> None:
    """A table with a row for each feature, and a line for each file newly set aside."""
    print(dim(line([title for title, _, _ in COLUMNS])))
    for name, outcome in outcomes.items():
        told = outcome.entry.details
        if outcome.entry.kind != "refreshed":
            why = told.get("error") or told.get("reason")
            print(red(wrapped(f"{name} {outcome.entry.kind}: {why}")))
            continue
        version, known = told["version"], before.get(name)
        is_new = changed(outcome.entry)
        milliseconds = outcome.seen_ms if outcome.seen_ms is not None else told["freshness_ms"]
        pushed = told["entities_pushed"] + told["entities_deleted"]
        text = line(
            [
                name,
                f"{known} → {version}" if known and is_new else version,
                bump_word(told["bump"], told["reason"]) or "-",
                told["reason"],
                f"{told['rows_recomputed']:,}" if is_new else "-",
                f"{pushed:,}" if pushed else "-",
                f"{milliseconds:,.0f} ms" if pushed and milliseconds is not None else "-",
            ]
        )
        print(green(text) if is_new else text)
    for outcome in outcomes.values():
        for path, why in outcome.entry.details.get("quarantined", {}).items():
            if path not in told_of:
                told_of.add(path)
                print(red(wrapped(f"set aside: {why}")))


def epilogue(stage: Stage) -> None:
    """Read one customer online, train on the same, compare all of them."""
    stage.settle()
    features = list(ENTITIES)
    customer = busiest(stage)
    [online] = get_online_features(
        ["user_spend", "user_peaks", "user_profile"],
        entities=[{"user_id": customer}],
        store=stage.online,
    )
    shown = [
        "user_spend__amount__count__7d",
        "user_spend__amount__sum__7d",
        "user_peaks__against_usual",
        "user_profile__plan",
    ]
    as_of = from_us(stage.online.books("user_spend").target.as_of)  # type: ignore[union-attr, arg-type]
    spine = pl.DataFrame(
        {
            "user_id": [customer] * 3,
            "event_time": [as_of - timedelta(days=20), as_of - timedelta(days=10), as_of],
        }
    )
    training = get_training_data(
        spine,
        ["user_spend", "user_peaks", "user_profile"],
        store=stage.store,
        timestamp="event_time",
    )

    print(f"\n{bold(f'   Customer {customer}, three times in a training set and once online')}\n")
    titles = ["", *(name.partition("__")[2] for name in shown)]
    body = [
        [f"training, {row['event_time']:%Y-%m-%d %H:%M:%S}", *(cell(row[name]) for name in shown)]
        for row in training.iter_rows(named=True)
    ]
    body.append(["online", *(cell(online[name]) for name in shown)])
    print(dim("   {:32}{:>18}{:>17}{:>15}{:>6}".format(*titles)))
    for row in body:
        print("   {:32}{:>18}{:>17}{:>15}{:>6}".format(*row))

    values, different = compare_all(stage, features)
    if different:
        raise Trouble(f"{len(different)} of {values} values differ, e.g. {different[0]}")
    print(green(f"\n   Training and online agree, in all {values:,} values of all entities."))


def compare_all(stage: Stage, features: Sequence[str]) -> tuple[int, list[str]]:
    """Every entity's online values beside the training values at the instant they are of."""
    count, different = 0, []
    for feature in features:
        key = ENTITIES[feature]
        entities = stage.store.read(feature, columns=[key]).unique().sort(key)
        as_of = stage.online.books(feature).target.as_of  # type: ignore[union-attr]
        spine = entities.with_columns(event_time=pl.lit(from_us(as_of)))  # type: ignore[arg-type]
        training = get_training_data(spine, [feature], store=stage.store, timestamp="event_time")
        # A column that uses `t` is of the instant of the request; here it is that of the spine.
        online = get_online_features(
            [feature],
            entities.to_dicts(),
            store=stage.online,
            at=from_us(as_of),  # type: ignore[arg-type]
        )
        for trained, served in zip(training.iter_rows(named=True), online, strict=True):
            for name in served.keys() - {key}:
                count += 1
                if not same(trained[name], served[name]):
                    different.append(f"{name} of {served[key]}: {trained[name]} and {served[name]}")
    return count, different


def same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return cell(one) == cell(other)


def busiest(stage: Stage) -> int:
    """The customer with the most purchases of late."""
    rows = stage.store.read("user_spend", columns=["user_id", "event_time", "amount__count__7d"])
    return int(rows.group_by("user_id").last().sort("amount__count__7d", "user_id")["user_id"][-1])


def farewell(folder: Path) -> None:
    """Where everything lies, and what to try next."""
    print(bold("   Where everything lies"))
    print(f"   {folder}/")
    for name, what in (
        ("definitions.py", "what is computed"),
        ("data/", "the files, as they were dropped"),
        ("feature_store/user_spend/", "a folder for each version, plain parquet"),
        ("up.log", "what the processes said"),
    ):
        print(f"     {name:40} {dim(what)}")
    print()
    print(bold("   To try next"))
    command = Path(sys.executable).with_name("mlforge")
    if shutil.which("mlforge") != str(command):
        print(f"   PATH={command.parent}:$PATH")
    print(f"   cd {folder}")
    for arguments, what in (
        ("versions user_spend", "each version, and why it was made"),
        ("diff user_spend 1.0.2 1.0.3", "what the amended file changed"),
        ("explain user_peaks user_id=1", "the events that a value was made of, down to the files"),
        ("up", "all of it again, until Ctrl-C; drop files into data/"),
    ):
        print(f"   {f'mlforge {arguments}':42} {dim(what)}")
    print(f"   {PAGE:42} {dim('its page, while mlforge up runs: drops as they happen')}")
    print(f"\n   The folder is yours to delete: rm -r {folder}")


@contextmanager
def up(folder: Path) -> Iterator[str]:
    """`mlforge up` in the folder; yields its REDIS_URL, stops it at the end."""
    environment = {k: v for k, v in os.environ.items() if k not in ("REDIS_URL", "RQ_REDIS_URL")}
    environment |= {"MLFORGE_DEFINITIONS": str(folder / "definitions.py"), "PYTHONUNBUFFERED": "1"}
    log = folder / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            bound_to_parent([sys.executable, "-m", "mlforge", "up"]),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C comes to this process; it stops the other in order
        )
    try:
        yield _url(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        address = re.search(r"rediss?://[^\s'\"]+", log.read_text(errors="replace"))
        if address:
            return address[0]
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise Trouble(f"mlforge up did not start:\n{log.read_text(errors='replace')[-2000:]}")


def line(cells: Sequence[str]) -> str:
    parts = [
        text.rjust(width) if right else text.ljust(width)
        for text, (_, width, right) in zip(cells, COLUMNS, strict=True)
    ]
    return "   " + "  ".join(parts).rstrip()


def cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def wrapped(text: str) -> str:
    return textwrap.fill(text, 90, initial_indent="   ", subsequent_indent="     ")


def _styled(code: str) -> Callable[[str], str]:
    def style(text: str) -> str:
        plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
        return text if plain else f"\033[{code}m{text}\033[0m"

    return style


bold, dim, red, green, cyan = map(_styled, ("1", "2", "31", "32", "36"))


if __name__ == "__main__":
    sys.exit(main())

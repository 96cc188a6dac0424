"""Makes `tests/data/store_before.tar.gz`: a project whose store was written by mlforge of commit e03bc5e.

    git worktree add ../before e03bc5e
    cd ../before && python <checkout>/tests/support/make_store_before.py <checkout>/tests/data/store_before.tar.gz

It runs with the code of that commit, whose modules have other places than today's, and needs nothing else of
this checkout. The archive holds the definitions, the source files, the store and, in `expected/`, what that
code answered; in `online.json` all keys of a server that it pushed to, and what it answered from there.
"""

from __future__ import annotations

import importlib
import json
import sys
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

START = datetime(2026, 1, 1, tzinfo=UTC)
DEFINITIONS = """
from pathlib import Path

import polars as pl

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore
from mlforge.validators import greater_than_or_equal, not_null

LEAST = 0.5


def usual(df: pl.DataFrame) -> pl.DataFrame:
    return df.filter(pl.col("amount") >= LEAST)


@feature(
    keys=["user_id"],
    source="events",
    timestamp="at",
    metrics=[Rolling(["2d", "7d"], {"amount": ["sum", "count", "mean", "max", "median"], "shop": ["count"]})],
    validators={"user_id": [not_null(on_fail="drop")], "amount": [greater_than_or_equal(0, on_fail="drop")]},
    description="what a user spends",
    tags=["money"],
)
def spend(df: pl.DataFrame) -> pl.DataFrame:
    return usual(df).select("user_id", "at", "amount", "shop")


@feature(
    keys=["user_id"],
    source="events",
    timestamp="at",
    interval="1d",
    metrics=[Rolling(METRICS, {"amount": ["sum", "count", "mean", "min", "max", "std"]})],
)
def daily(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", "amount")


@feature(keys=["user_id"], source="profiles", timestamp="since")
def profile(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "since", pl.col("country").str.to_uppercase())


defs = Definitions(
    store=LocalStore(Path(__file__).parent / "store"), features=[spend, daily, profile], root=Path(__file__).parent
)
"""


def at(days: float) -> datetime:
    """An instant, in days from the start."""
    return START + timedelta(days=days)


def events(*rows: tuple[int | None, float, float]) -> pl.DataFrame:
    """Events as (user, day, amount)."""
    return pl.DataFrame(
        {
            "user_id": [user for user, _, _ in rows],
            "at": [at(day) for _, day, _ in rows],
            "amount": [amount for _, _, amount in rows],
            "shop": [f"shop {day % 3:.2f}" for _, day, _ in rows],
        },
        schema_overrides={"user_id": pl.Int64, "at": pl.Datetime("us", "UTC")},
    )


class Maker:
    """A project folder, built again and again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("events", "profiles", "expected"):
            (root / name).mkdir()
        self.define('["2d"]')

    def define(self, windows: str) -> None:
        """Write the definitions with these windows for `daily`."""
        text = DEFINITIONS.lstrip().replace("METRICS", windows)
        (self.root / "definitions.py").write_text(text, encoding="utf-8")

    def drop(self, name: str, *rows: tuple[int | None, float, float]) -> None:
        """Put a file of events into the source."""
        events(*rows).write_parquet(self.root / "events" / f"{name}.parquet")

    def build(self) -> None:
        """Refresh all features as a process of its own would, and pack what became small files."""
        loading: Any = importlib.import_module("mlforge.loading")
        operations: Any = importlib.import_module("mlforge.operations")
        packs: Any = importlib.import_module("mlforge.store.packs")
        from mlforge.store import LocalStore

        made = loading.load(None, here=self.root)
        made.store = LocalStore(self.root / "store", packs.Packing(at_least=4))
        for name, result in made.build().items():
            assert result.version, name
        for name in ("spend", "daily", "profile"):
            operations.tidy(made.store, name)


def answers(root: Path) -> None:
    """Keep what this code reads of every version: its rows, and training values of a spine."""
    from mlforge import get_training_data
    from mlforge.store import LocalStore

    store = LocalStore(root / "store")
    spine = pl.DataFrame(
        [{"user_id": user, "at": at(day / 2)} for day in range(40) for user in range(6)]
    )
    for name in store.features():
        for version in store.list_versions(name):
            rows = store.read(name, version)
            rows.write_parquet(root / "expected" / f"{name}-{version}-rows.parquet")
            found = get_training_data(spine, [(name, version)], store, timestamp="at")
            found.write_parquet(root / "expected" / f"{name}-{version}-training.parquet")


def push(root: Path) -> None:
    """Push what is served to a server of its own; keep all that it then holds, and what is answered for each user."""
    clock: Any = importlib.import_module("mlforge.clock")
    loading: Any = importlib.import_module("mlforge.loading")
    servers: Any = importlib.import_module("tests.servers")
    from redis import Redis

    from mlforge import get_online_features
    from mlforge.online import RedisStore

    with servers.running() as server, clock.fixed(at(13.5)):
        url = f"redis://127.0.0.1:{server.port}/0"
        made = loading.load(None, here=root)
        made.online_store = RedisStore.from_url(url)
        entities = [{"user_id": user} for user in range(6)]
        answers = {}
        for name in ("daily", "profile", "spend"):
            made.push(name)
            answers[name] = get_online_features([name], entities, made.online_store)
        client = Redis.from_url(url, decode_responses=True)
        readers = {
            "string": client.get,
            "hash": client.hgetall,
            "set": lambda key: sorted(client.smembers(key)),
        }
        keys = {key: readers[client.type(key)](key) for key in sorted(client.scan_iter("*"))}
    document = {"keys": keys, "answers": answers}
    (root / "online.json").write_text(json.dumps(document, default=str, indent=1))


def make(root: Path) -> None:
    """The history of the project: packs, loose partials, tiles, a hold on a bad file, several versions."""
    tiles: Any = importlib.import_module("mlforge.engines.tiles")
    tiles.FEWEST, tiles.DENSE = 0, 0
    maker = Maker(root)
    for day in range(8):
        users = ((day + n) % 5 for n in range(6))
        maker.drop(f"d{day:02d}", *((user, day + n / 7, n + 0.25) for n, user in enumerate(users)))
    profiles = pl.DataFrame(
        {"user_id": [0, 1, 2], "since": [at(0), at(1), at(2)], "country": ["de", "fr", None]}
    )
    profiles.write_parquet(root / "profiles" / "p0.parquet")
    maker.build()
    maker.drop("late", (1, 2.5, 9.0), (4, 3.5, 0.1), (None, 3.5, 1.0), (2, 4.5, -1.0))
    maker.build()
    maker.drop("d03", (3, 3.25, 30.0))
    (root / "events" / "d05.parquet").unlink()
    (root / "events" / "bad.parquet").write_bytes(b"PAR1 this is not a whole file")
    pl.DataFrame(
        {"user_id": [1, 5], "since": [at(5), at(6)], "country": ["it", "es"]}
    ).write_parquet(root / "profiles" / "p1.parquet")
    maker.define('["2d", "5d"]')
    maker.build()
    for day in range(8, 11):
        maker.drop(f"d{day:02d}", (day % 5, day + 0.5, 2.0), (1, day + 0.75, 4.0))
    maker.build()
    for day in range(11, 13):
        maker.drop(f"d{day:02d}", (day % 5, day + 0.5, 2.0))
    maker.build()
    answers(root)
    push(root)


def main(archive: Path) -> None:
    """Make the project and put it into an archive."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "before"
        root.mkdir()
        make(root)
        names = [path for path in sorted(root.rglob("*")) if "__pycache__" not in path.parts]
        with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as packed:
            for path in names:
                packed.add(path, str(path.relative_to(root.parent)), recursive=False)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    main(Path(sys.argv[1]).absolute())

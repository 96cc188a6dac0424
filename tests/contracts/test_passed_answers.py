"""Answers over HTTP that are made of stored rows: the same as those that the library makes of the values."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import httpx
import polars as pl
import pytest
import redis

from mlforge import Definitions, Service, feature
from mlforge.core import clock
from mlforge.core.expression.columns import Derived
from mlforge.core.schema import Column, dtypes
from mlforge.errors import DefinitionError
from mlforge.features.selection import Selection
from mlforge.frames.encoding import key_hash
from mlforge.frames.polars_schema import dtype_text
from mlforge.online import OnlineBooks, RedisStore, Target
from mlforge.online.books import INCOMPLETE
from mlforge.serve.app import App
from mlforge.serve.values import reads
from mlforge.serve.values.pass_through import Plan
from mlforge.store import LocalStore

NOON = 1_704_110_400_000_000
HOUR = 3_600_000_000
USERS = range(12)
VALUES: list[tuple[Any, list[Any]]] = [
    (pl.Int64(), [0, -7, 2**62, None]),
    (pl.UInt8(), [0, 250, None]),
    (pl.Float64(), [0.5, -0.0, 1e300, 2.5e-9, None]),
    (pl.Float32(), [0.1, None]),
    (pl.String(), ["", "é", 'a "b"\n', "\u2028", None]),
    (pl.Boolean(), [True, False, None]),
    (pl.Date(), [date(2024, 2, 29), date(2023, 12, 31), None]),
    (pl.Datetime("us", "UTC"), [datetime(2024, 2, 28, 1, 2, 3, 4, UTC), None]),
    (pl.Decimal(10, 2), [Decimal("1.50"), Decimal("-3.07"), None]),
    (pl.List(pl.Int64()), [[], [1, None], None]),
    (pl.Struct({"lat": pl.Float64(), "tag": pl.String()}), [{"lat": 1.5, "tag": "x"}, None]),
]


@dataclass(frozen=True)
class Pushed:
    """A feature with rows online."""

    name: str
    keys: tuple[str, ...]
    frame: pl.DataFrame
    books: OnlineBooks

    @classmethod
    def drawn(cls, name: str, random: Random) -> Pushed:
        keys = random.choice((("user_id",), ("user_id",), ("user_id", "shop"), ()))
        users = random.sample(USERS, 8) if keys else [0]
        columns: dict[str, Any] = {
            "user_id": pl.Series(users, dtype=pl.Int64),
            "shop": [f"s{user % 3}" for user in users],
        }
        frame = pl.DataFrame({key: columns[key] for key in keys})
        frame = frame if keys else pl.DataFrame(height=1)
        values = []
        for number, (dtype, some) in enumerate(random.choices(VALUES, k=random.randint(1, 4))):
            drawn = pl.Series(f"c{number}__7d", [random.choice(some) for _ in users], dtype=dtype)
            frame = frame.with_columns(drawn)
            values.append(Column(drawn.name, dtype_text(dtype), random.choice((None, "sum")), "7d"))
        empty = {c.name: 0 if c.dtype in ("Int64", "UInt8") else None for c in values}
        defaults = {values[0].name: 7} if random.random() < 0.2 and values[0].dtype in ("Int64", "Float64") else {}  # fmt: skip
        key_columns = tuple(Column(key, dtype_text(frame.schema[key])) for key in keys)
        derived: tuple[Derived, ...] = ()
        if random.random() < 0.3:
            derived = (
                random.choice((Derived("d", "days(t - '2024-01-01')"), Derived("d", "1 + 1"))),
            )
            if derived[0].expression == "1 + 1":
                frame = frame.with_columns(d=pl.lit(2, dtype=pl.Int64))
                values.append(Column("d", "Int64"))
                empty["d"] = 2
        books = OnlineBooks(
            target=None,
            rows=frame.height,
            pushed_at=NOON,
            renewed_at=NOON,
            keys=key_columns,
            columns=tuple(values),
            empty=empty,
            derived=derived,
            inputs=(*key_columns, *values[: len(values) - len(derived)]) if derived else (),
            defaults=defaults,
        )
        return cls(name, keys, frame, books)

    def push(
        self, store: RedisStore, generation: int, version: str = "1.0.0", **changes: Any
    ) -> None:
        target = Target(version, generation, NOON + generation, f"r{generation}")
        store.begin(self.name, target)
        store.put(self.name, target, self.frame, list(self.keys))
        store.finish(self.name, target, replace(self.books, **changes))

    def definition(self) -> Any:
        return feature(name=self.name, keys=list(self.keys), source="rows.parquet")(lambda df: df)

    def entity(self, user: int) -> dict[str, Any]:
        own = {"user_id": user, "shop": f"s{user % 3}"}
        return {key: own[key] for key in self.keys}


def service(name: str, features: Sequence[Pushed], random: Random) -> Service | None:
    """A service of some features as a user may write it; None where the draw makes none."""
    some = random.sample(features, random.randint(1, 3))
    uses: list[Any] = []
    labels: list[tuple[str, str]] = []
    for pushed in some:
        columns = [*dtypes(pushed.books.columns).items()]
        use = Selection(pushed.definition().spec)
        if random.random() < 0.6:
            columns = random.sample(columns, random.randint(1, len(columns)))
            use = use[tuple(column for column, _ in columns)]
        prefix = pushed.name
        if random.random() < 0.3:
            prefix = f"as_{pushed.name}"
            renamed = {"user_id": "buyer_id"} if "user_id" in pushed.keys and random.random() < 0.5 else {}  # fmt: skip
            use = use.as_(prefix, **renamed)
        uses.append(use)
        labels += [(f"{prefix}__{column}", dtype) for column, dtype in columns]
    numbers = [label for label, dtype in labels if dtype in ("Int64", "Float64", "UInt8")]
    options: dict[str, Any] = {}
    if numbers and random.random() < 0.4:
        options["defaults"] = {random.choice(numbers): 3}
    if random.random() < 0.4:
        label = random.choice([label for label, _ in labels])
        options["derive"] = {"gone": f"is_null({label})", "age": "days(t - '2024-01-01')"}
        if numbers and random.random() < 0.7:
            options["request"] = {"price": pl.Float64}
            options["derive"]["share"] = f"price / {random.choice(numbers)}"
    if random.random() < 0.3:
        options["max_age"] = "1h"
    with suppress(DefinitionError):
        return Service(name, uses, **options)
    return None


def request_of(service: Service, features: Sequence[Pushed], random: Random) -> dict[str, Any]:
    own = {pushed.name: pushed for pushed in features}
    entities: list[dict[str, Any]] = []
    for _ in range(random.choice((0, 1, 1, 5, 30))):
        user, entity = random.randrange(16), {}
        for use in service.features:
            renamed = dict(use.renamed)
            of_feature = own[use.feature].entity(user)
            entity |= {renamed.get(key, key): value for key, value in of_feature.items()}
        if "user_id" in entity and random.random() < 0.2:
            entity["user_id"] = random.choice((str(user), float(user)))
        entities.append(entity)
    if entities and random.random() < 0.1:
        entities[-1] = random.choice(({"user": 1}, {**entities[-1], "more": 1}, {"user_id": None}))
    body: dict[str, Any] = {"entities": entities}
    if service.request:
        prices = [{"price": random.choice((1, 2.5, None))} for _ in entities]
        body["request"] = prices if random.random() < 0.9 else [{"price": "high"}] * len(entities)
    options = {"max_age": "30m", "details": True, "at": "2024-01-02T00:00:00Z"}
    body |= {name: value for name, value in options.items() if random.random() < 0.12}
    return body


SPELLINGS: list[Callable[[dict[str, Any], Random], bytes]] = [
    lambda row, random: json.dumps(row).encode(),  # blanks, and text in ASCII
    lambda row, random: json.dumps(dict(reversed(row.items())), separators=(",", ":")).encode(),
    lambda row, random: json.dumps({**row, "more": 1}, separators=(",", ":")).encode(),
    lambda row, random: json.dumps(dict(list(row.items())[1:])).encode(),
    lambda row, random: json.dumps({**row, random.choice(list(row)): {"a": 1}}).encode(),
    lambda row, random: json.dumps(row, separators=(",", ":")).encode().replace(b"null", b"NaN"),
    lambda row, random: json.dumps(row, separators=(",", ":")).encode()[:-1],
    lambda row, random: json.dumps(row, separators=(",", ":")).encode().replace(b'"', b'"\xff', 3),
]


def spoil(client: redis.Redis, features: Sequence[Pushed], random: Random) -> None:
    """Somebody rewrites or deletes a few rows; most of them are rows as before."""
    for pushed in random.sample(list(features), 2):
        rows = pushed.frame.height
        for user in random.sample(USERS, min(2, rows)):
            key = f"mlforge:{pushed.name}:{key_hash(pushed.entity(user))}"
            text = client.get(key)
            if random.random() < 0.3:
                client.delete(key)
            elif text is not None and text[:1] == b"{":
                with suppress(ValueError):
                    client.set(key, random.choice(SPELLINGS)(json.loads(text), random))


async def asked(
    app: App, bodies: Sequence[tuple[str, dict[str, Any]]], afresh: bool = False
) -> list[tuple[int, Any]]:
    """The status of each answer, and its JSON with the types of all values; afresh: each as if it were the first of its kind."""
    transport, answers = httpx.ASGITransport(app), []
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        for path, body in bodies:
            if afresh:
                app._reads.passing._learned.clear()
            answer = await client.post(path, json=body)
            answers.append((answer.status_code, repr(answer.json())))
    return answers


@pytest.mark.parametrize(
    ("layout", "seed"),
    [
        ("json", 0),
        *(pytest.param("json", seed, marks=pytest.mark.slow) for seed in range(1, 6)),
        *(pytest.param("packed", seed, marks=pytest.mark.slow) for seed in range(2)),
    ],
)
def test_answers_of_stored_rows_are_those_of_the_library(
    layout: str, seed: int, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(seed)
    store = RedisStore.from_url(redis_url, layout=layout)
    features = [Pushed.drawn(f"f{number}", random) for number in range(5)]
    for pushed in features:
        pushed.push(store, 1, evidence=random.choice((None, store.evidence())))
    drawn = [service(f"s{number}", features, random) for number in range(12)]
    services = [made for made in drawn if made is not None]
    definitions = Definitions(
        LocalStore(tmp_path / "store"),
        [pushed.definition() for pushed in features],
        store,
        services=services,
        root=tmp_path,
    )
    passed: list[int] = []
    body_of = Plan.body
    monkeypatch.setattr(Plan, "body", lambda *given: passed.append(1) or body_of(*given))
    app, library, statuses = App(definitions), App(definitions), set()
    with redis.Redis.from_url(redis_url) as client, clock.fixed(NOON + HOUR // 4):
        for step in range(4):
            bodies: list[tuple[str, dict[str, Any]]] = []
            for made in services:
                path = f"/v1/services/{made.name}"
                bodies += [(path, request_of(made, features, random)) for _ in range(3)]
            for pushed in features:
                body = {"features": [pushed.name], "entities": [pushed.entity(1), pushed.entity(2)]}
                bodies += [("/v1/features", body)] * 2
                uses = [{"feature": pushed.name, "version": "1.0.0"}]
                bodies.append(("/v1/features", {**body, "features": uses}))
            with clock.fixed(NOON + HOUR * (1 + step % 3) // 2):
                answers = asyncio.run(asked(app, [*bodies, *bodies]))
                before = len(passed)
                # The first request of a kind is left to the library.
                expected = asyncio.run(asked(library, bodies, afresh=True))
                assert len(passed) == before
            assert answers == expected * 2
            statuses |= {status for status, _ in answers}
            if layout == "json":
                spoil(client, features, random)
            features[3].push(store, step + 2, f"1.0.{step}")  # as each drop does
            if step == 1:
                features[0].push(store, 2)
                features[4].push(store, 2, empty=dict.fromkeys(features[4].books.empty))
                store.begin(features[1].name, Target("2.0.0", 9, NOON, "r9"))
            if step == 2:
                features[2].push(store, 3, evidence=INCOMPLETE)
    assert {200, 422, 503} <= statuses
    assert (len(passed) > 50) == (layout == "json"), len(passed)
    store.close()


@pytest.mark.parametrize("at", ["", "soon", "2024-01-02T00:00:00Z"])
def test_an_instant_is_taken_or_refused_whatever_was_asked_before(
    at: str, tmp_path: Path, redis_url: str
) -> None:
    store = RedisStore.from_url(redis_url)
    keys, values = (Column("user_id", "Int64"),), (Column("c__7d", "Float64", "sum", "7d"),)
    books = OnlineBooks(None, rows=1, pushed_at=NOON, renewed_at=NOON, keys=keys, columns=values)
    frame = pl.DataFrame({"user_id": [1], "c__7d": [0.5]})
    pushed = Pushed("f", ("user_id",), frame, replace(books, empty={"c__7d": None}))
    pushed.push(store, 1)
    definition = pushed.definition()
    made = Service("s", [definition], derive={"age": "days(t - '2024-01-01')"})
    features, rooted = [definition], LocalStore(tmp_path / "store")
    definitions = Definitions(rooted, features, store, services=[made], root=tmp_path)
    body = {"entities": [pushed.entity(1)]}
    requests = [("/v1/services/s", body), ("/v1/services/s", {**body, "at": at})]
    with clock.fixed(NOON):
        after_another = asyncio.run(asked(App(definitions), requests))
        alone = asyncio.run(asked(App(definitions), requests[1:]))
    assert after_another[1:] == alone
    assert after_another[0] != alone[0]
    store.close()


@dataclass(frozen=True)
class Small:
    """A feature of one column, its service with an oldest age, and the number of answers that the library made."""

    pushed: Pushed
    store: RedisStore
    app: App
    by_library: list[int]

    def ask(self, *bodies: dict[str, Any], path: str = "/v1/services/s") -> list[tuple[int, Any]]:
        """The answers to these, or to one entity's request."""
        requests = [(path, body) for body in bodies or ({"entities": [{"user_id": 1}]},)]
        return asyncio.run(asked(self.app, requests))


@pytest.fixture
def small(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Small]:
    store = RedisStore.from_url(redis_url)
    keys, values = (Column("user_id", "Int64"),), (Column("c__7d", "Float64", "sum", "7d"),)
    books = OnlineBooks(None, rows=1, pushed_at=NOON, renewed_at=NOON, keys=keys, columns=values)
    frame = pl.DataFrame({"user_id": [1], "c__7d": [0.5]})
    pushed = Pushed("f", ("user_id",), frame, replace(books, empty={"c__7d": None}))
    pushed.push(store, 1)
    features = [pushed.definition()]
    made = Service("s", features, max_age="1h")
    root = LocalStore(tmp_path / "store")
    app = App(Definitions(root, features, store, services=[made], root=tmp_path))
    by_library: list[int] = []
    answer = reads.online_answer
    monkeypatch.setattr(
        reads, "online_answer", lambda *given: by_library.append(1) or answer(*given)
    )
    with clock.fixed(NOON + HOUR // 2):
        small = Small(pushed, store, app, by_library)
        assert [status for status, _ in small.ask()] == [200]
        by_library.clear()
        yield small
    store.close()


def test_a_push_sends_no_request_to_the_library(small: Small) -> None:
    """Neither as it begins nor once it has ended; the answer tells of the push whose rows it has."""
    for number in range(2, 6):
        target = Target(f"1.0.{number}", number, NOON + number, f"r{number}")
        small.store.begin("f", target)
        [(status, before)] = small.ask()
        assert (status, f"'version': '1.0.{number}'" in before) == (200, False)
        small.pushed.push(small.store, number, f"1.0.{number}")
        [(status, after)] = small.ask()
        assert (status, f"'version': '1.0.{number}'" in after) == (200, True)
        assert f"12:00:00.00000{number}Z" in after
    assert small.by_library == []


@pytest.mark.parametrize(
    "changes",
    [
        {"columns": (Column("c__7d", "Float32", "sum", "7d"),)},
        {"empty": {"c__7d": 0.0}},
        {"defaults": {"c__7d": 3.0}},
        {"keys": (Column("user_id", "Int32"),)},
        {"derived": (Derived("c__7d", "1.5"),)},
    ],
    ids=str,
)
def test_books_of_another_shape_are_read_by_the_library(
    small: Small, changes: dict[str, Any]
) -> None:
    absent = {"entities": [{"user_id": 2}]}
    small.ask(absent)
    small.by_library.clear()
    small.pushed.push(small.store, 2, **changes)
    [first, second] = small.ask(absent, absent)
    assert small.by_library != []
    assert first == second
    expected = changes.get("empty", {}).get("c__7d", changes.get("defaults", {}).get("c__7d"))
    assert f"[{{'c__7d': {expected!r}}}]" in first[1] or "derived" in changes


def test_what_is_held_against_each_push_is_held_after_one(small: Small) -> None:
    """An age that a push does not reach, a version that it ends, and rows that it may have taken away."""
    absent = {"entities": [{"user_id": 2}]}
    named = {**absent, "features": [{"feature": "f", "version": "1.0.0"}]}
    assert [status for status, _ in small.ask(named, named, path="/v1/features")] == [200, 200]
    small.pushed.push(small.store, 2, "1.0.1")
    [(status, problem)] = small.ask(named, path="/v1/features")
    assert (status, "1.0.0 is not served online" in problem) == (503, True)
    small.store.begin("f", Target("2.0.0", 3, NOON + 3, "r3"))
    [(status, problem)] = small.ask(absent)
    assert (status, "other columns is being pushed" in problem) == (503, True)
    old = Target("2.0.0", 3, NOON - HOUR, "r3")
    small.store.forget("f")
    small.store.begin("f", old)
    small.store.finish("f", old, small.pushed.books)
    [(status, problem)] = small.ask()
    assert (status, "older than max_age" in problem) == (503, True)


def test_a_default_takes_the_place_of_a_null_that_is_stored(small: Small) -> None:
    null = small.pushed.frame.with_columns(c__7d=pl.lit(None, pl.Float64))
    replace(small.pushed, frame=null).push(small.store, 2, defaults={"c__7d": 3.0})
    stored = {"entities": [{"user_id": 1}]}
    for _, text in small.ask(stored, stored):
        assert "'c__7d': 3.0" in text


def test_features_that_share_a_prefix_share_its_rows(small: Small) -> None:
    both = small.pushed.frame.with_columns(d__7d=pl.lit(1.5))
    columns = (*small.pushed.books.columns, Column("d__7d", "Float64", "sum", "7d"))
    replace(small.pushed, frame=both).push(
        small.store, 2, columns=columns, empty=dict.fromkeys(dtypes(columns))
    )
    uses = [{"feature": "f", "columns": [c.name], "prefix": "x"} for c in columns]
    asked_of = {"entities": [{"user_id": 1}], "features": uses}
    for _, text in small.ask(asked_of, asked_of, path="/v1/features"):
        assert "{'x': [{'c__7d': 0.5, 'd__7d': 1.5}]}" in text

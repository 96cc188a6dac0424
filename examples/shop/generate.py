"""Write the events of a small shop, one parquet file a day, up to the present.

    python examples/shop/generate.py [--days 60] [--until 2026-01-31T12:00] [--out DIR] [--seed 7]

The same seed, days and end give the same rows: payments, customers' profiles, products'
embeddings. The data is as untidy as real data: several purchases at one instant, rows without a
customer, sales without an amount, rows that arrive days late, rows that arrive twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from random import Random

import polars as pl

CUSTOMERS = 400
MERCHANTS = 30
PRODUCTS = 60
PURCHASES_A_DAY = 500
COUNTRIES = ["DE", "FR", "IN", "JP", "NG", "US"]
PLANS = ["free", "plus", "pro"]

TRANSACTIONS = pl.Schema(
    {
        "user_id": pl.Int64(),
        "merchant_id": pl.String(),
        "device_id": pl.String(),
        "event_time": pl.Datetime("us", "UTC"),
        "kind": pl.String(),
        "amount": pl.Float64(),
    }
)
PROFILES = pl.Schema(
    {
        "user_id": pl.Int64(),
        "updated_at": pl.Datetime("us", "UTC"),
        "country": pl.String(),
        "plan": pl.String(),
    }
)
PRODUCT_ROWS = pl.Schema(
    {
        "product_id": pl.String(),
        "updated_at": pl.Datetime("us", "UTC"),
        "price": pl.Float64(),
        "embedding": pl.Array(pl.Float32(), 8),
    }
)


@dataclass(frozen=True)
class Day:
    """What the shop writes on one day: three tables, each may be empty."""

    date: date
    transactions: pl.DataFrame
    profiles: pl.DataFrame
    products: pl.DataFrame


def days(count: int, until: datetime, seed: int = 7) -> Iterator[Day]:
    """The last `count` days, oldest first; of the last one, what has happened by `until`.

    A day's rows depend on the seed and its date alone, except that the first day registers all
    customers and products.
    """
    first = until.date() - timedelta(days=count - 1)
    for number in range(count):
        day = first + timedelta(days=number)
        random = Random(f"{seed} {day}")
        transactions = _transactions(random, day)
        profiles = _profiles(random, day, everyone=number == 0)
        products = _products(random, day, everything=number == 0)
        yield Day(
            day,
            transactions.filter(pl.col("event_time") <= until),
            profiles.filter(pl.col("updated_at") <= until),
            products.filter(pl.col("updated_at") <= until),
        )


def write(out: Path, day: Day) -> list[Path]:
    """Write one day below `out`, a file a table; empty tables are left out.

    Each file appears whole: it is written under a hidden name, then renamed.
    """
    tables = {
        "transactions": day.transactions,
        "profiles": day.profiles,
        "products": day.products,
    }
    return [
        drop(frame, out / folder / f"{day.date}.parquet")
        for folder, frame in tables.items()
        if frame.height
    ]


def drop(frame: pl.DataFrame, path: Path) -> Path:
    """Put a frame where a watcher may be looking: under a hidden name first, then by one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.tmp")
    frame.write_parquet(hidden)
    return hidden.replace(path)


def _transactions(random: Random, day: date) -> pl.DataFrame:
    rows: list[tuple[int | None, str, str, datetime, str, float | None]] = []
    for _ in range(PURCHASES_A_DAY):
        user = _favouring_low(random, CUSTOMERS)
        at = _instant(random, day)
        if random.random() < 0.02:  # the till was offline and reported later
            at -= timedelta(days=random.randint(1, 5))
        device = _device(random, user)
        for _ in range(random.choice([1, 1, 1, 2, 3])):  # one basket, one instant
            merchant = f"m{_favouring_low(random, MERCHANTS):03d}"
            kind = "refund" if random.random() < 0.04 else "sale"
            amount = round(3 + 40 * random.random() ** 3 * random.choice([1, 1, 1, 8]), 2)
            rows.append(
                (
                    None if random.random() < 0.01 else user,  # paid in cash, nobody known
                    merchant,
                    device,
                    at,
                    kind,
                    None if random.random() < 0.005 else amount,
                )
            )
            if random.random() < 0.005:
                rows.append(rows[-1])  # sent twice
    random.shuffle(rows)
    return pl.DataFrame(rows, schema=TRANSACTIONS, orient="row")


def _profiles(random: Random, day: date, *, everyone: bool) -> pl.DataFrame:
    start = datetime.combine(day, time(), UTC)
    if everyone:
        ids = list(range(1, CUSTOMERS + 1))
        times = [start] * CUSTOMERS
    else:
        ids = random.sample(range(1, CUSTOMERS + 1), 6)
        times = [_instant(random, day) for _ in ids]
    rows = [
        (user, at, random.choice(COUNTRIES), random.choice(PLANS))
        for user, at in zip(ids, times, strict=True)
    ]
    return pl.DataFrame(rows, schema=PROFILES, orient="row")


def _products(random: Random, day: date, *, everything: bool) -> pl.DataFrame:
    """Products whose price and embedding are new: a few a day, as after a new training."""
    start = datetime.combine(day, time(), UTC)
    numbers = range(1, PRODUCTS + 1)
    rows = [
        (
            f"p{number:03d}",
            start if everything else _instant(random, day),
            round(random.uniform(3, 90), 2),
            [round(random.gauss(0, 1), 3) for _ in range(8)],
        )
        for number in (numbers if everything else random.sample(numbers, 3))
    ]
    return pl.DataFrame(rows, schema=PRODUCT_ROWS, orient="row")


def _device(random: Random, user: int) -> str:
    """The customer's phone, another device of theirs, or a till that everybody uses."""
    draw = random.random()
    if draw < 0.03:
        return f"till-{random.randint(1, 5)}"
    return f"{'phone' if draw < 0.8 else 'laptop'}-{user}"


def _instant(random: Random, day: date) -> datetime:
    return datetime.combine(day, time(), UTC) + timedelta(seconds=random.randrange(86_400))


def _favouring_low(random: Random, most: int) -> int:
    return 1 + int(most * random.random() ** 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=int, default=60, help="how many days, today included")
    parser.add_argument(
        "--until",
        type=datetime.fromisoformat,
        default=datetime.now(UTC),
        help="the last instant, in UTC unless it says otherwise (default: now)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "data", help="default: data/ beside me"
    )
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    if options.days < 1:
        parser.error("--days must be 1 or more")
    until = options.until if options.until.tzinfo else options.until.replace(tzinfo=UTC)
    files = [
        path
        for day in days(options.days, until.astimezone(UTC), options.seed)
        for path in write(options.out, day)
    ]
    print(f"{len(files)} files in {options.out}")


if __name__ == "__main__":
    main()

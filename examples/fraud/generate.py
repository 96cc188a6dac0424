"""Write the payments of some cards, of which a few are stolen, one parquet file a day.

    python examples/fraud/generate.py [--out DIR] [--seed 7]

The same seed gives the same rows. A thief pays several times within an hour, more than the card's holder does, and mostly at
the same few merchants; the first of these payments looks like any other. Whether a payment was fraud is known weeks later: labels
are a file of their own, and no feature reads them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import polars as pl

CARDS, MERCHANTS, DAYS = 200, 40, 45
END = datetime(2026, 3, 31, 18, tzinfo=UTC)
STOLEN_NOW = "c007"
"""The card that a thief uses at the end of the data."""
OFFLINE = "c012"
"""The card that a thief used twice on a terminal whose payments arrive late."""

PAYMENTS = pl.Schema(
    {
        "payment_id": pl.Int64(),
        "card_id": pl.String(),
        "merchant_id": pl.String(),
        "at": pl.Datetime("us", "UTC"),
        "amount": pl.Float64(),
    }
)


@dataclass(frozen=True)
class History:
    """Payments as they arrived by END, the file that arrives later, the cards, and which payments were fraud."""

    payments: pl.DataFrame
    late: pl.DataFrame
    cards: pl.DataFrame
    labels: pl.DataFrame


def history(seed: int = 7) -> History:
    """The payments of DAYS days up to END, in the order of time."""
    random = Random(seed)
    cards = [(f"c{number:03d}", random.choice([500.0, 1000.0, 3000.0])) for number in range(CARDS)]
    rows: list[tuple[str, str, datetime, float, bool]] = []
    late: list[tuple[str, str, datetime, float, bool]] = []
    for card, _ in cards:
        usual = random.lognormvariate(3.4, 0.5)
        rows += _own(random, card, usual)
        if random.random() < 0.6 and card not in (STOLEN_NOW, OFFLINE):
            begun = END - timedelta(days=random.uniform(0.1, DAYS - 8))
            rows += _stolen(random, card, usual, begun)
        if card == STOLEN_NOW:
            rows += _stolen(random, card, usual, END - timedelta(minutes=50))
        if card == OFFLINE:
            late += _stolen(random, card, usual, END - timedelta(days=4))
            late += _stolen(random, card, usual, END - timedelta(minutes=55))
    rows = sorted((row for row in rows if row[2] <= END), key=lambda row: row[2])
    numbered = [(number, *row) for number, row in enumerate([*rows, *late], start=1)]
    frame = pl.DataFrame(numbered, schema={**PAYMENTS, "fraud": pl.Boolean()}, orient="row")
    return History(
        payments=frame.head(len(rows)).drop("fraud"),
        late=frame.tail(len(late)).drop("fraud"),
        cards=pl.DataFrame(cards, schema=["card_id", "limit"], orient="row"),
        labels=frame.select("payment_id", "fraud"),
    )


def _own(
    random: Random, card: str, usual: float
) -> Iterator[tuple[str, str, datetime, float, bool]]:
    """The payments of the card's holder."""
    a_day, shops = random.uniform(0.4, 2.0), random.sample(range(MERCHANTS), 6)
    at = END - timedelta(days=DAYS)
    while (at := at + timedelta(days=random.expovariate(a_day))) < END - timedelta(hours=2):
        amount = round(usual * random.lognormvariate(0, 0.6), 2)
        yield card, f"m{random.choice(shops):02d}", at, amount, False


def _stolen(
    random: Random, card: str, usual: float, begun: datetime
) -> Iterator[tuple[str, str, datetime, float, bool]]:
    """The payments of a thief, within some 50 minutes."""
    for number in range(random.randint(5, 8)):
        at = begun + timedelta(minutes=6 * number + random.uniform(0, 5))
        amount = round(usual * random.uniform(0.8, 4), 2)
        yield card, f"m{random.randint(0, 5):02d}", at, amount, True


def write(out: Path, history: History) -> list[Path]:
    """Write the cards, the labels, and a file of payments for each day; the late file is left out."""
    files = [
        drop(history.cards, out / "cards.parquet"),
        drop(history.labels, out / "labels.parquet"),
    ]
    by_day = history.payments.with_columns(day=pl.col("at").dt.date()).partition_by(
        "day", include_key=False, as_dict=True
    )
    return files + [
        drop(payments, out / "payments" / f"{day}.parquet") for (day,), payments in by_day.items()
    ]


def drop(frame: pl.DataFrame, path: Path) -> Path:
    """Put a frame where a watcher may be looking: under a hidden name first, then by one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.tmp")
    frame.write_parquet(hidden)
    return hidden.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "data", help="default: data/ beside me"
    )
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    files = write(arguments.out, history(arguments.seed))
    print(f"{len(files)} files in {arguments.out}")


if __name__ == "__main__":
    main()

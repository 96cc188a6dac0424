"""Write purchases to try things with: `python generate.py [DAYS]`, one file a day up to now."""

import sys
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from random import Random

import polars as pl

FOLDER = Path(__file__).parent / "purchases"


def main(days: int = 45) -> None:
    """Write the last so many days, today's up to now."""
    now = datetime.now(UTC)
    FOLDER.mkdir(exist_ok=True)
    for ago in reversed(range(days)):
        day = now.date() - timedelta(days=ago)
        random = Random(str(day))  # a day's purchases depend on its date alone
        rows = [
            (
                random.randint(1, 200),
                random.choice(["apple", "bread", "cheese", "dates"]),
                datetime.combine(day, time(), UTC) + timedelta(seconds=random.randrange(86_400)),
                round(random.uniform(1, 60), 2),
            )
            for _ in range(300)
        ]
        frame = pl.DataFrame(
            rows, schema=["user_id", "product", "event_time", "amount"], orient="row"
        ).filter(pl.col("event_time") <= now)
        hidden = FOLDER / f".{day}.parquet.tmp"
        frame.write_parquet(hidden)
        hidden.replace(FOLDER / f"{day}.parquet")  # a watcher sees whole files only
    print(f"{days} files in {FOLDER}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))

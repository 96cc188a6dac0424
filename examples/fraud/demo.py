"""From payments to a model that is served: a training set, a fit, a lock, a prediction, a late file, and labels that lie ahead.

    python examples/fraud/demo.py [--keep DIR]

Needs the extra `examples` (scikit-learn, and a Redis-compatible server that is started here).
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import structlog
from definitions import card_profile, card_spend, checkout_fraud, merchant_daily
from generate import END, OFFLINE, STOLEN_NOW, drop, history, write
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import mean_absolute_error, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mlforge import (
    Definitions,
    TrainingSet,
    ahead,
    events_of,
    get_online_features,
    get_training_data,
    training_set,
)
from mlforge.core.values import from_us
from mlforge.errors import MlforgeError
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from worker.service.embedded_redis import EmbeddedServer

HERE = Path(__file__).parent
SHOP = "m03"
TEST_FROM = pl.lit(END).dt.offset_by("-7d")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this new folder")
    folder = parser.parse_args().keep or Path(tempfile.mkdtemp(prefix="mlforge-fraud-"))
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        print(f"{folder} is not empty; name a new folder", file=sys.stderr)
        return 1
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        with EmbeddedServer(folder / ".mlforge") as server:
            play(folder, server.url)
    except MlforgeError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"\nAll of it lies in {folder}; there, `mlforge services checkout_fraud` shows the service."
    )
    return 0


def play(folder: Path, redis_url: str) -> None:
    """The whole way, in a new folder."""
    past = history()
    files = write(folder / "data", past)
    shutil.copy(HERE / "definitions.py", folder)
    print(
        f"1. Data: {past.payments.height:,} payments of {past.cards.height} cards in {len(files)} files"
    )

    # --8<-- [start:build]
    online = RedisStore.from_url(redis_url)
    defs = Definitions(
        store=LocalStore(folder / "feature_store"),
        features=[card_spend, merchant_daily, card_profile],
        services=[checkout_fraud],
        online_store=online,
        root=folder,
    )
    result = defs.build(online=True)
    # --8<-- [end:build]
    for name in defs.features:
        print(f"   {name} {result[name].version}: {result[name].rows:,} rows, online")

    # --8<-- [start:train]
    spine = past.payments.join(past.labels, on="payment_id").filter(
        pl.col("at") > pl.lit(END).dt.offset_by("-30d")  # the windows before are not full
    )
    trained_on = training_set(
        spine, checkout_fraud, store=defs.store, out=folder / "train/march", timestamp="at"
    )
    # --8<-- [end:train]
    print(f"2. Training set: {trained_on.document.rows:,} rows of {versions(trained_on)}")

    model, score = fit(trained_on.scan().collect())
    print(f"3. Model: area under the curve {score:.3f} on the last seven days")

    # --8<-- [start:lock]
    lock = trained_on.lock
    defs.store.register_lock("fraud_v1", lock)
    # --8<-- [end:lock]
    print(f"   its lock is registered: {len(lock.columns)} columns mean what they did in training")

    # --8<-- [start:predict]
    def risk_of(card: str, amount: float) -> float:
        [answer] = get_online_features(
            checkout_fraud,
            [{"card_id": card, "merchant_id": SHOP}],
            store=online,
            request=[{"amount": amount}],
            lock=lock,
        )
        return float(model.predict_proba(inputs(answer))[0, 1])

    # --8<-- [end:predict]
    print(f"4. Served: a payment of 80.00 at {SHOP}")
    print(f"   by {STOLEN_NOW}, which a thief has: risk {risk_of(STOLEN_NOW, 80.0):.2f}")
    before = risk_of(OFFLINE, 80.0)
    print(f"   by {OFFLINE}: risk {before:.2f}")
    print(f"   training and online agree on {agreeing(defs, online)} values")

    # --8<-- [start:late]
    drop(past.late, folder / "data/payments/late.parquet")
    result = defs.build(online=True)
    # --8<-- [end:late]
    print(
        f"5. A late file: {past.late.height} payments of {OFFLINE}, from a terminal that was offline"
    )
    for name in ("card_spend", "merchant_daily"):
        print(f"   {name} {result[name].version} ({result[name].reason})")
    print(f"   by {OFFLINE}: risk {before:.2f} -> {risk_of(OFFLINE, 80.0):.2f}")

    # --8<-- [start:blast]
    radius = trained_on.blast_radius(defs.store)
    # --8<-- [end:blast]
    print(f"6. Blast radius: {radius.rows.height} rows of the training set would differ today")
    for file, rows in radius.by_file.items():
        print(f"   because of {file}: {rows}")

    # --8<-- [start:ahead]
    weeks = training_set(
        events_of(card_spend, every="1d", between=(END - timedelta(days=30), None)),
        [card_spend, card_profile],
        store=defs.store,
        out=folder / "train/weeks",
        labels={
            "spend_ahead": ahead(card_spend, "amount", "sum", "7d"),
            "payments_ahead": ahead(card_spend, "amount", "count", "7d"),
        },
    )
    # --8<-- [end:ahead]
    unknown = weeks.document.labels[0].unknown
    print(
        f"7. Labels ahead: {weeks.rows:,} rows of a card and a day, of {unknown:,} the week is not over"
    )
    error, as_before = fit_weeks(weeks.scan().collect())
    print(
        f"   what a card spends next week is missed by {error:.0f} (as last week: {as_before:.0f})"
    )
    online.close()


# --8<-- [start:fit]
OWN = [name for name in checkout_fraud.own_names if name != "amount"]
COLUMNS = ["amount", *(f"card_spend__amount__{name}" for name in ("count__1h", "count__7d"))]
COLUMNS += ["merchant_daily__amount__mean__7d", *OWN]


def inputs(rows: pl.DataFrame | Mapping[str, Any]) -> Any:
    """The model's inputs, from a training set's rows or from an online answer alike."""
    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame([rows])
    return frame.select(COLUMNS).cast(pl.Float64).to_numpy()


def fit(rows: pl.DataFrame) -> tuple[Pipeline, float]:
    """A model of all but the last seven days, and its score on these."""
    known, later = rows.filter(pl.col("at") < TEST_FROM), rows.filter(pl.col("at") >= TEST_FROM)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(inputs(known), known["fraud"].to_numpy())
    risks = model.predict_proba(inputs(later))[:, 1]
    return model, float(roc_auc_score(later["fraud"].to_numpy(), risks))


# --8<-- [end:fit]
# --8<-- [start:fit_weeks]
PAST = ["sum__7d", "count__7d", "mean__30d"]


def fit_weeks(rows: pl.DataFrame) -> tuple[float, float]:
    """How far a model of the next week's spending is off on average, and how far last week's spending is."""
    past = [f"card_spend__amount__{name}" for name in PAST]
    known = rows.filter(pl.col("payments_ahead").is_not_null()).with_columns(
        pl.col("spend_ahead", *past).fill_null(0)  # no payments: nothing was spent
    )
    before = pl.col("at") < pl.lit(END).dt.offset_by("-14d")  # whose weeks are over by TEST_FROM
    first, later = known.filter(before), known.filter(~before)
    model = LinearRegression().fit(first.select(past).to_numpy(), first["spend_ahead"].to_numpy())
    spent = later["spend_ahead"].to_numpy()
    return (
        float(mean_absolute_error(spent, model.predict(later.select(past).to_numpy()))),
        float(mean_absolute_error(spent, later[past[0]].to_numpy())),
    )


# --8<-- [end:fit_weeks]
def versions(trained_on: TrainingSet) -> str:
    """`card_spend 1.0.0, merchant_daily 1.0.0, ...`."""
    return ", ".join(
        f"{used.reference.name} {used.version}" for used in trained_on.document.features
    )


def agreeing(defs: Definitions, online: RedisStore) -> int:
    """How many values of all cards are the same in training and online; MlforgeError if one differs."""
    count = 0
    for name, feature in defs.features.items():
        [key] = feature.spec.keys
        books = online.books(name)
        assert books is not None
        assert books.target is not None
        as_of = END if books.target.as_of is None else from_us(books.target.as_of)
        spine = defs.store.read(name, columns=[key]).unique().sort(key)
        spine = spine.with_columns(at=pl.lit(as_of))
        training = get_training_data(spine, [name], store=defs.store, timestamp="at").drop("at")
        served = get_online_features([name], spine.select(key).to_dicts(), store=online)
        for trained, answer in zip(training.iter_rows(named=True), served, strict=True):
            for column, value in trained.items():
                if not same(value, answer[column]):
                    raise MlforgeError(f"{column} of {trained[key]}: {value} and {answer[column]}")
                count += 1
    return count


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-9 * max(1.0, abs(one))
    return bool(one == other)


if __name__ == "__main__":
    sys.exit(main())

"""Features of cards and merchants, and the service that a model of fraud takes them through."""

from __future__ import annotations

import polars as pl

from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore


# --8<-- [start:features]
@feature(
    keys=["card_id"],
    source="data/payments/",
    timestamp="at",
    metrics=[
        # "left" leaves the present event out: a payment is judged before it is among the payments.
        Rolling(["1h", "7d"], {"amount": ["count", "sum"]}, closed="left"),
        Rolling("30d", {"amount": "mean"}, closed="left"),
    ],
    owner="risk",
    columns={"amount__count__1h": "payments within the last hour"},
)
def card_spend(df: pl.DataFrame) -> pl.DataFrame:
    """What a card has paid before any instant."""
    return df.select("card_id", "at", "amount")


@feature(
    keys=["merchant_id"],
    source="data/payments/",
    timestamp="at",
    interval="1d",
    metrics=[Rolling("7d", {"amount": ["count", "mean"]})],
    owner="risk",
)
def merchant_daily(df: pl.DataFrame) -> pl.DataFrame:
    """What merchants have taken in the seven days before midnight."""
    return df.select("merchant_id", "at", "amount")


@feature(keys=["card_id"], source="data/cards.parquet", owner="cards")
def card_profile(df: pl.DataFrame) -> pl.DataFrame:
    """A card's limit."""
    return df.select("card_id", "limit")


# --8<-- [end:features]
# --8<-- [start:service]
checkout_fraud = Service(
    "checkout_fraud",
    features=[
        card_spend[
            "amount__count__1h", "amount__sum__1h", "amount__count__7d", "amount__mean__30d"
        ],
        merchant_daily["amount__mean__7d"],
        card_profile["limit"],
    ],
    request={"amount": pl.Float64},
    defaults={"amount__sum__1h": 0, "amount__mean__30d": 35, "amount__mean__7d": 35, "limit": 1000},
    derive={
        "times_usual": "log1p(amount / card_spend__amount__mean__30d)",
        "of_limit": "(amount + card_spend__amount__sum__1h) / card_profile__limit",
    },
    owner="risk",
    description="Whether a payment at checkout is fraud.",
)
# --8<-- [end:service]

defs = Definitions(
    store=LocalStore("feature_store"),
    features=[card_spend, merchant_daily, card_profile],
    services=[checkout_fraud],
    name="fraud",
)

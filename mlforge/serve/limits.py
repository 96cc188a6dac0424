"""Bounds on what a caller may send, and on how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of requests.

    entities, features: the most of one request. body_bytes: the most of one body. body_s: seconds within which a body is to be here.
    rows, drop_bytes: the most rows of JSON, and the most bytes, of one request to a source. uploads_bytes: the most of all such requests in hand.
    """

    entities: int = 1_000
    features: int = 100
    body_bytes: int = 4 << 20
    body_s: float = 20.0
    rows: int = 10_000
    drop_bytes: int = 32 << 20
    uploads_bytes: int = 256 << 20

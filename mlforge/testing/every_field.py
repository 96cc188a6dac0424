"""A look at values of many fields: a contract that writes one with something in each of them learns of fields that come later."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def differ_in_every_field(value: Any, plain: Any, *but: str) -> bool:
    """Whether two values of one dataclass differ in each field that counts for their equality, but for some."""
    names = [each.name for each in fields(value) if each.compare and each.name not in but]
    return all(getattr(value, name) != getattr(plain, name) for name in names)

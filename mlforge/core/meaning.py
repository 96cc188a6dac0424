"""Meaning: what a feature's columns stand for, whatever rows there are.

Two columns of one meaning are computed by the same code over the same keys, time, interval, metric and derived
expression. Where the events come from, which engine computes them and how often have no part in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

from mlforge.core.expression.columns import Derived, read
from mlforge.core.expression.tree import Node
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import config_of
from mlforge.core.values import Duration

Parts = Mapping[str, Any]
"""The parts of a column's meaning, as JSON types by name."""

_TOLD = {
    "column": "the column that it is of",
    "closed": "the window's closed ends",
    "joined_by": "the names of its keys",
    "derive": "the expression",
    "default": "the value in place of null",
    "reads": "what the expression reads",
}


@dataclass(frozen=True, slots=True)
class FeatureMeaning:
    """All that the meanings of a feature's columns consist of, without the columns' dtypes.

    keys: sorted, since their order changes no value. metrics: by column name, each a JSON object.
    derived: derived columns, in order.
    """

    code: str
    keys: tuple[str, ...]
    timestamp: str | None
    interval: str | None
    metrics: Mapping[str, Parts]
    derived: tuple[Derived, ...] = ()

    @classmethod
    def of(cls, spec: FeatureSpec, code_hash: str) -> FeatureMeaning:
        """The meaning of a version, or of a feature as it is defined."""
        config = config_of(spec)
        metrics = zip((column.name for column in spec.columns), config["metrics"], strict=True)
        keys = tuple(sorted(spec.keys))
        interval = None if spec.interval is None else timedelta(microseconds=spec.interval.us)
        length = None if interval is None else Duration.parse(interval).text
        return cls(code_hash, keys, spec.timestamp, length, dict(metrics), spec.derived)

    @classmethod
    def parse(cls, text: str) -> FeatureMeaning:
        """Read what `text` gives; ValueError, TypeError, KeyError or AttributeError for anything else."""
        document = json.loads(text)
        derived = (
            Derived(str(c["name"]), str(c["expression"])) for c in document.get("derive", ())
        )
        return cls(
            document["code"],
            tuple(document["keys"]),
            document["timestamp"],
            document["interval"],
            {str(name): dict(metric) for name, metric in document["metrics"].items()},
            tuple(derived),
        )

    @property
    def text(self) -> str:
        """The value as JSON on one line."""
        derived = [{"name": c.name, "expression": c.expression} for c in self.derived]
        document = {
            "code": self.code,
            "keys": self.keys,
            "timestamp": self.timestamp,
            "interval": self.interval,
            "metrics": dict(self.metrics),
            **({"derive": derived} if derived else {}),
        }
        return _json(document)

    def column(self, name: str) -> dict[str, Any]:
        """The parts of a value column's meaning; a name that is no metric and not derived is the function's own column."""
        head = {
            "code": self.code,
            "keys": list(self.keys),
            "timestamp": self.timestamp,
            "interval": self.interval,
        }
        return {"name": name, **head, **self._own(name)}

    def _own(self, name: str) -> dict[str, Any]:
        """The parts that a column does not share with all others of the feature."""
        if name in self.metrics:
            return dict(self.metrics[name])
        places = [i for i, column in enumerate(self.derived) if column.name == name]
        if not places:
            return {"column": name}
        column, earlier = self.derived[places[0]], self.derived[: places[0]]
        known = {*self.metrics, *(before.name for before in earlier)}
        names = sorted(set(read(column, name).names) & known)
        return {"derive": column.expression, "reads": {other: self._own(other) for other in names}}


@lru_cache(maxsize=512)
def meaning_text(spec: FeatureSpec, code_hash: str) -> str:
    """The meaning of a version as text: equal texts have equal meanings."""
    return FeatureMeaning.of(spec, code_hash).text


def meaning_hash(parts: Parts) -> str:
    """SHA-256 over the parts, in hexadecimal; how an expression is laid out does not count."""
    return hashlib.sha256(_json(_normal(parts), sort_keys=True).encode()).hexdigest()


def differences(before: Parts, now: Parts) -> list[str]:
    """How a column's meaning changed, in words, as in "window 7d became 14d"; empty for equal meanings."""
    old, new = _normal(before), _normal(now)
    changed = [name for name in dict.fromkeys((*before, *now)) if old.get(name) != new.get(name)]
    return [words for name in changed for words in _words(name, before.get(name), now.get(name))]


def _words(name: str, before: Any, now: Any) -> Iterator[str]:
    if name == "reads" and isinstance(before, Mapping) and isinstance(now, Mapping):
        for column in sorted({*before, *now}):
            own, other = before.get(column), now.get(column)
            if isinstance(own, Mapping) and isinstance(other, Mapping):
                yield from (
                    f"{words} in {column}, which it reads" for words in differences(own, other)
                )
            elif own != other and own is not None and other is not None:
                yield f"{column}, which it reads, changed"
        return
    if name == "code":
        yield "the function's code changed"
        return
    yield f"{_TOLD.get(name, name)} {_shown(name, before)} became {_shown(name, now)}"


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} as {other}" for key, other in value.items()) or "none"
    return repr(value) if name in ("derive", "default") else str(value)


def _normal(parts: Parts) -> dict[str, Any]:
    """The parts with expressions as trees."""
    normal: dict[str, Any] = dict(parts)
    if isinstance(parts.get("derive"), str):
        normal["derive"] = _tree(read(Derived(str(parts.get("name")), parts["derive"]), "lock"))
    reads = parts.get("reads")
    if isinstance(reads, Mapping):
        normal["reads"] = {
            name: _normal(own) if isinstance(own, Mapping) else own for name, own in reads.items()
        }
    return normal


def _tree(node: Node) -> list[Any]:
    """An operation, its value and what it is of; where they stand in the text is left out."""
    return [node.op, None if node.value is None else repr(node.value), *map(_tree, node.args)]


def _json(document: Mapping[str, Any], *, sort_keys: bool = False) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, sort_keys=sort_keys)

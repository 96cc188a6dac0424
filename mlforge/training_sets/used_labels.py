"""Labels of training sets, as the document beside a set has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlforge.core.metrics import MetricColumn
from mlforge.core.time_model import Window
from mlforge.core.values import Duration
from mlforge.retrieval.labels import Ahead, LabelUse
from mlforge.retrieval.reading import FeatureUse
from mlforge.training_sets.used_features import UsedFeature


@dataclass(frozen=True, slots=True)
class UsedLabel:
    """A label as a training set has it.

    feature: the one whose events it aggregates, its only column the label. unknown: rows that are null because their horizon
    was not over by the watermark.
    """

    name: str
    metric: MetricColumn
    feature: UsedFeature
    unknown: int

    @classmethod
    def of(cls, use: LabelUse, unknown: int) -> UsedLabel:
        """The label as a reading has it."""
        feature = UsedFeature.of(FeatureUse(use.label.reference, use.manifest, use.name))
        columns = ((use.label.metric.name, use.name),)
        return cls(use.name, use.label.metric, replace(feature, columns=columns), unknown)

    @property
    def label(self) -> Ahead:
        """Label as `ahead` makes it."""
        return Ahead(self.feature.reference, self.metric)

    def to_json(self) -> dict[str, Any]:
        """The document."""
        metric = self.metric
        return {
            "name": self.name,
            "column": metric.column,
            "aggregation": metric.aggregation,
            "horizon": metric.window.name,
            **({} if metric.where is None else {"where": metric.where}),
            "unknown": self.unknown,
            "feature": self.feature.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> UsedLabel:
        """Read the document."""
        window = Window(Duration.parse(document["horizon"]), None, "right")
        metric = MetricColumn(
            document["column"], document["aggregation"], window, document.get("where")
        )
        feature = UsedFeature.from_json(document["feature"])
        return cls(document["name"], metric, feature, document["unknown"])

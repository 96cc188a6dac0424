"""The state of a feature, as `status` and the metrics tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlforge.core.values import to_iso
from mlforge.store import Audit, DriftNote
from worker.state.event_log import Distribution


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """The last audit, and the last one that found nothing wrong (`proven`...)."""

    version: str
    at: str | None
    values: int
    mismatches: int
    unproven: int
    first: tuple[str, ...]
    proven_version: str | None
    proven_at: str | None
    proven_values: int

    @classmethod
    def of(cls, audit: Audit | None) -> AuditStatus | None:
        """The status of an audit; None if there was no audit yet."""
        if audit is None:
            return None
        proven = audit.proven
        return cls(
            version=audit.version,
            at=to_iso(audit.at),
            values=audit.values,
            mismatches=audit.mismatches,
            unproven=audit.unproven,
            first=audit.first,
            proven_version=proven.version if proven else None,
            proven_at=to_iso(proven.at) if proven else None,
            proven_values=proven.values if proven else 0,
        )


@dataclass(frozen=True, slots=True)
class FeatureStatus:
    """The state of a feature: what is stored, what is online, what is being done about it."""

    feature: str
    state: str
    version: str | None
    rows: int | None
    online_version: str | None
    online_rows: int | None
    as_of: str | None
    lag: str | None
    lag_seconds: float
    held: str | None
    held_now: str | None
    error: str | None
    failing_since: str | None
    """When the first refresh failed of those since the last that went well; None where none did."""
    retry_at: str | None
    quarantine: dict[str, str]
    ignored: dict[str, str]
    source_missing: bool
    freshness: Distribution | None
    audit: AuditStatus | None
    unreadable: tuple[str, ...] = ()
    upstream: str | None = None
    """The reason why the feature that this one is made from gives nothing new, in words."""
    drift: Mapping[str, DriftNote] = field(default_factory=dict)
    """The last judgement of each column that has a rule of drift, as far as it is of the served version or an older one."""
    pushed_at: str | None = None
    """When the version that is online was pushed, or its rows last changed."""

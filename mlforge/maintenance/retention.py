"""Which versions a store keeps: a pure decision."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mlforge.core.values import Duration, Version


@dataclass(frozen=True, slots=True)
class Retention:
    """The rule for removing versions. A version goes only if every part that is set allows it.

    patches: this many newest versions stay, and the newest of each MINOR. older_than: younger versions stay.
    newest: this many newest versions stay, without the newest of each MINOR.
    """

    patches: int | None = None
    newest: int | None = None
    older_than: Duration | None = None


# What a running worker does by itself.
UNATTENDED = Retention(patches=50)


def removable(
    versions: Mapping[Version, int],
    served: Version | None,
    pins: Collection[Version],
    rule: Retention,
    now: int,
) -> list[Version]:
    """The versions that may be removed, ascending; `versions` maps each to its time of creation, in UTC microseconds.

    The served, pinned and highest versions always stay; the next number follows the highest.
    """
    ordered = sorted(versions)
    safe = {*ordered[-1:], *pins, *([served] if served else [])}
    if rule.patches is not None:
        safe |= {*ordered[-rule.patches :], *{(v.major, v.minor): v for v in ordered}.values()}
    if rule.newest is not None:
        safe |= set(ordered[-rule.newest :] if rule.newest else [])
    if rule.older_than is not None:
        safe |= {
            version
            for version, created_at in versions.items()
            if created_at > now - rule.older_than.us
        }
    return [version for version in ordered if version not in safe]

"""The versions that references mean: the served ones, or those that a store had at an instant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mlforge.core.manifest import ROLLED_BACK, Manifest, VersionSummary
from mlforge.core.values import Version, to_iso
from mlforge.errors import VersionNotFound
from mlforge.retrieval.references import Reference
from mlforge.store import Store


@dataclass(frozen=True)
class Versions:
    """A store's versions, each resolved once: the same reference always means the same one.

    known_at: UTC microseconds; None means now.
    """

    store: Store
    known_at: int | None
    _resolved: dict[Reference, Manifest] = field(default_factory=dict)

    def of(self, reference: Reference) -> Manifest:
        """The version that a reference means.

        Raises FeatureNotFound for an unknown feature, VersionNotFound where there is no such version, or where nobody can
        tell any more which one the store had.
        """
        named = Reference(reference.name, reference.version)
        if named not in self._resolved:
            self._resolved[named] = self._find(named)
        return self._resolved[named]

    def _find(self, reference: Reference) -> Manifest:
        version = None if reference.version is None else str(reference.version)
        if self.known_at is None:
            return self.store.resolve(reference.name, version)
        if version is None:
            return self._known(reference.name, self.known_at)
        manifest = self.store.resolve(reference.name, version)
        if manifest.created_at > self.known_at:
            raise VersionNotFound(
                f"{manifest.name} {version} was made at {to_iso(manifest.created_at)}, after known_at={to_iso(self.known_at)}; "
                "name an older version, or give a later instant"
            )
        return manifest

    def _known(self, name: str, at: int) -> Manifest:
        """The newest version that was there at an instant."""
        self.store.resolve(name)  # FeatureNotFound for an unknown one
        summaries = sorted(self.store.summaries(name), key=lambda each: each.version)
        before = [each for each in summaries if each.created_at <= at]
        after = [each for each in summaries if each.created_at > at]
        present = {each.version for each in before}
        for gone in (v for v in _preceding(after[0]) if v not in present) if after else ():
            raise VersionNotFound(
                f"{name}: version {gone}, which came before {after[0].version} ({to_iso(after[0].created_at)}), was pruned, so "
                f"nobody can tell what the store had at {to_iso(at)}; give a later instant, and keep versions with 'mlforge pin'"
            )
        if not before:
            since = to_iso(summaries[0].created_at)
            raise VersionNotFound(
                f"{name}: the store had no version at {to_iso(at)}: its first build was at {since}; give a later instant"
            )
        return self.store.manifest(name, before[-1].version)


def _preceding(version: VersionSummary) -> Iterator[Version]:
    """The versions that were there when a version was made: the one that was served, and the highest after a rollback."""
    if version.parent is not None:
        yield version.parent
    highest = version.change.evidence.get(ROLLED_BACK) if version.change else None
    if highest is not None:
        yield Version.parse(highest)

"""Features whose source is another feature: who reads whom, and in which order they are built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mlforge.definitions.namesakes import check_meant
from mlforge.errors import DefinitionError
from mlforge.features.feature import Feature


def check_chains(features: Mapping[str, Feature]) -> None:
    """Refuse a feature that reads one that is not defined, and features that read each other in a circle.

    Also one that reads another feature than the defined one of that name.
    """
    for name, feature in features.items():
        if feature.upstream is not None and feature.upstream not in features:
            raise DefinitionError(
                f"Definitions: {name} reads the feature {feature.upstream!r}, which is not among the features; "
                "add it to features=[...], or give another source="
            )
        check_meant(name, filter(None, [feature.made_of]), features)
    for name in features:
        above = [name]
        while (upstream := features[above[-1]].upstream) is not None:
            if upstream in above:
                circle = " reads ".join([*above[above.index(upstream) :], upstream])
                raise DefinitionError(
                    f"Definitions: features read each other in a circle: {circle}; give one of them another source="
                )
            above.append(upstream)


def upstreams(features: Mapping[str, Feature], name: str) -> list[str]:
    """The features that a feature is made from, the nearest first."""
    above = []
    while (upstream := features[name].upstream) is not None:
        above.append(upstream)
        name = upstream
    return above


def readers(features: Mapping[str, Feature], name: str) -> list[str]:
    """The features whose source is this one, in the order of the definitions."""
    return [other for other, feature in features.items() if feature.upstream == name]


def in_order(features: Mapping[str, Feature], names: Iterable[str]) -> list[str]:
    """The names, each behind those that it is made from, and behind no feature of another chain than these."""
    chosen = dict.fromkeys(names)
    chains: dict[str, dict[str, None]] = {}
    for name in chosen:
        above = [*reversed(upstreams(features, name)), name]
        chains.setdefault(above[0], {}).update(dict.fromkeys(n for n in above if n in chosen))
    return [name for chain in chains.values() for name in chain]


def with_readers(features: Mapping[str, Feature], names: Iterable[str]) -> list[str]:
    """The names and all features that are made from them, in order."""
    chosen = set(names)
    return in_order(
        features,
        [n for n in features if n in chosen or not chosen.isdisjoint(upstreams(features, n))],
    )


def stages(features: Mapping[str, Feature], names: Iterable[str]) -> list[list[str]]:
    """The names by how many of them each is made from."""
    chosen = dict.fromkeys(names)
    by_depth: dict[int, list[str]] = {}
    for name in chosen:
        depth = len([above for above in upstreams(features, name) if above in chosen])
        by_depth.setdefault(depth, []).append(name)
    return [by_depth[depth] for depth in sorted(by_depth)]

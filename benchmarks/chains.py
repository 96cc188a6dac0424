"""Measure 23: what a drop costs that flows through a feature made from another, against the first feature alone."""

from __future__ import annotations

from benchmarks.drops import Feed, drops_by_turns
from benchmarks.harness import MILLISECONDS, Bench, Measure, Row, Target, check, median_of, ratios
from benchmarks.project import NAME, Project, Stores
from mlforge import Definitions, feature
from mlforge.features.feature import Feature
from mlforge.metrics import Rolling

READER = "peaks"


def peaks() -> Feature:
    """The feature behind: the greatest and the mean of a user's sums."""
    return feature(
        name=READER,
        keys=["user_id"],
        source=f"feature:{NAME}",
        timestamp="event_time",
        metrics=[Rolling("30d", {"amount__sum__7d": ["max", "mean"]})],
    )(lambda df: df)


class Chain(Feed):
    """A feed whose drops flow through both features."""

    def follow(self, *_: str) -> int:
        """Refresh and push both, which look at all that is there; how many rows went online."""
        definitions = self.stores.definitions
        written = 0
        for name in (NAME, READER):
            self.modes.add(definitions.refresh(name).mode)
            written += definitions.push(name).written
        return written


def _chained(project: Project) -> Chain:
    one = project.stores()
    definitions = Definitions(
        one.definitions.store,
        [project.feature, peaks()],
        one.definitions.online_store,
        project.bench.engine,
        root=project.folder,
    )
    chain = Chain(project, Stores(definitions, one.prefix))
    definitions.build(online=True)
    chain.drop()
    chain.modes.clear()
    return chain


def _run(bench: Bench) -> list[Row]:
    alone = Feed.over(Project.over(bench, bench.history()))
    chained = _chained(Project.over(bench, bench.history()))
    single, double = drops_by_turns(bench, [alone, chained])
    check(chained.modes == {"incremental"}, f"drops were refreshed {chained.modes}")
    store = chained.stores.definitions.store
    served = store.read_metadata(NAME)
    check(store.read_metadata(READER).upstream == (NAME, served.version), "the chain has followed")
    check(
        store.read_metadata(READER).row_count == served.row_count, "each row above gives one below"
    )
    return [
        Row(
            "23",
            f"drop of {bench.size.drop:,} events through two features: refresh + push",
            median_of(double, MILLISECONDS),
            f"through the first: {median_of(single, MILLISECONDS)}",
            ratios(double, single),
            Target(3.0),
        )
    ]


MEASURES = (
    Measure("23", "a drop through two features, against one through the first", "<= 3x", _run),
)

"""`training_set`: a spine of any length and its features' values, streamed into a folder in flat memory."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from mlforge.build.distribution import Distribution
from mlforge.build.runner import Runner
from mlforge.core import clock
from mlforge.core.arguments import shown
from mlforge.core.failpoints import reach
from mlforge.core.release import RELEASE
from mlforge.core.signatures import named_arguments
from mlforge.engines import engine_named
from mlforge.errors import RetrievalError
from mlforge.retrieval.labels import Ahead, parse_labels
from mlforge.retrieval.locked import lock_of_reading
from mlforge.retrieval.reading import Reading, Terms, read
from mlforge.retrieval.references import FeatureRef
from mlforge.retrieval.training import parse_known_at
from mlforge.services.description import describe
from mlforge.services.service import Service
from mlforge.store import Store
from mlforge.store.apart import check_beside, check_in_no_store
from mlforge.training_sets import pins
from mlforge.training_sets.by_tasks.shared_writing import SharedWriting
from mlforge.training_sets.document import SetDocument
from mlforge.training_sets.event_spines import EventRows, EventSpine, UsedSpine
from mlforge.training_sets.joining import Joining
from mlforge.training_sets.places import place_at
from mlforge.training_sets.set_files import SetPlace
from mlforge.training_sets.spines import Spine, spine_of
from mlforge.training_sets.training_set import TrainingSet
from mlforge.training_sets.used_features import UsedFeature
from mlforge.training_sets.used_labels import UsedLabel
from mlforge.training_sets.writing import Written, written

PART_ROWS = 75_000
_MOST_ROWS = 1_000_000_000


@named_arguments("training_set")
def training_set(
    spine: Any,
    features: Sequence[FeatureRef] | Service | str,
    store: Store,
    out: str | Path,
    timestamp: str | None = None,
    engine: str = "polars",
    part_rows: int = PART_ROWS,
    labels: Mapping[str, Ahead] | None = None,
    known_at: datetime | date | str | int | None = None,
    runner: Runner | Distribution | None = None,
) -> TrainingSet:
    """A folder of parquet files with the spine and each feature's values as of each row's own time.

    spine: as `get_training_data` takes it, or the path of a parquet file, of a folder of them, or a list of paths;
        a LazyFrame is run once; `events_of(user_spend, every="1d")` makes rows of a feature's events. Rows keep their order: they fill `part-00000.parquet`, `part-00001.parquet`, ...
    features, timestamp, engine, labels, known_at: as in `get_training_data`, whose values, names and errors these are.
    out: a folder that does not exist yet, or an address in a bucket such as `s3://bucket/train/2026-11` below which nothing lies; the set is there when it is whole. Beside the parts it has `training_set.json`:
        the versions, their source files, the hashes of all that went in, and the request; and `features.lock`: what
        the columns mean, for the model that is made with them.
    part_rows: how many rows are joined at a time, and are in each file. Memory follows this number, not the spine.
    runner: who joins and writes the parts of a spine longer than one, such as a SparkRunner whose executors reach the store, `out` and the
        spine's files; "mlforge train" takes that of the definitions. The rows are the same to the last bit.

    All versions are resolved once, and stay in the store until the set is released. Raises RetrievalError for a
    spine or a folder that does not fit, StoreError for an unknown feature or version, or a store that cannot be
    written to.
    """
    place = _place(out, store)
    if type(part_rows) is not int or not 1 <= part_rows <= _MOST_ROWS:
        raise RetrievalError(
            f"part_rows is {shown(part_rows)}; give a whole number from 1 to {_MOST_ROWS:,}"
        )
    if runner is not None and not isinstance(runner, (Runner, Distribution)):
        raise RetrievalError(
            f"runner is {shown(runner)}; give one such as SparkRunner('sc://host:15002'), or leave it out"
        )
    set_id, kernel = uuid.uuid4().hex, engine_named(engine)
    events = spine.reference if isinstance(spine, EventSpine) else None
    sharing = Distribution(runner, 0, "") if isinstance(runner, Runner) else runner
    terms = Terms(parse_labels(labels), events, parse_known_at(known_at))
    with place.making(set_id) as files:
        scratch = files.scratch
        known = None if isinstance(spine, EventSpine) else spine_of(spine, scratch)

        def pinned(reading: Reading) -> Joining:
            head = known.head if known else EventRows.checked(spine, reading).head
            joining = Joining.checked(reading, head, timestamp, kernel)
            pins.pin(reading, set_id, place)
            return joining

        joining = read(features, store, pinned, terms)
        with pins.released_on_failure(store, set_id, place):
            with joining.reading.leased():
                rows = known or EventRows.checked(spine, joining.reading).written(scratch)
                draft = _draft(set_id, rows, joining, engine, scratch)
                if sharing is None or rows.height <= max(part_rows, sharing.above):
                    outcome = written(rows, joining, files, part_rows)
                else:
                    writing = SharedWriting(joining, draft, place.name, files, part_rows, sharing)
                    outcome = writing.written(rows)
                document = _with_rows(draft, outcome, joining, files.prefix)
            document = replace(
                document,
                known_at=terms.known_at,
                spine_events=None if known else UsedSpine.of(spine, joining.reading),
            )
            rows.check_unchanged()
            lock = lock_of_reading(joining.reading, document.created_at)
            reach("set.written")
            place.publish(files, document.to_text(), lock.text)
            reach("set.published")
            pins.keep(store, set_id)
    return TrainingSet.at(place.address, document, store)


def _draft(set_id: str, spine: Spine, joining: Joining, engine: str, scratch: Path) -> SetDocument:
    """The document of a set without its rows."""
    identity = joining.reading.store.establish()
    service = joining.reading.service
    return SetDocument(
        id=set_id,
        created_at=clock.now(),
        mlforge_version=RELEASE,
        store=identity.id,
        engine=engine,
        timestamp=joining.timestamp,
        features=tuple(map(UsedFeature.of, joining.reading.uses)),
        spine=(),
        spine_hash="",
        spine_files=tuple(str(file) for file in spine.files if file.parent != scratch),
        columns=(),
        parts=(),
        service=None if service is None else describe(service),
        labels=tuple(UsedLabel.of(use, 0) for use in joining.reading.labels),
    )


def _with_rows(draft: SetDocument, outcome: Written, joining: Joining, prefix: str) -> SetDocument:
    """The document, with what was written. prefix: ahead of the parts' names."""
    labels = (replace(each, unknown=joining.unknown[each.name]) for each in draft.labels)
    return replace(
        draft,
        spine=outcome.spine,
        spine_hash=outcome.spine_hash,
        columns=outcome.columns,
        parts=tuple(replace(part, file=prefix + part.file) for part in outcome.parts),
        labels=tuple(labels),
    )


def _place(out: object, store: Any) -> SetPlace:
    if not isinstance(out, (str, Path)) or not str(out):
        raise RetrievalError(
            f"out must be a folder's path, or an address such as 's3://bucket/train/2026-11', not {shown(out)}"
        )
    place = place_at(out, store)
    check_in_no_store(place.address, store=store if isinstance(store, Store) else None)
    # Another value in the place of a store is refused in a moment.
    if isinstance(store, Store) and store.address is not None:
        check_beside(place.address, store.address)
    place.check_free()
    return place

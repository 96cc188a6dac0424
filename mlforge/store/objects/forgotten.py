"""`_metadata/forgotten.json`: salted hashes of the entities that the store has forgotten.

The document counts its changes, and each feature's document says which of them its writers know. So a refresh reads this
object only where that is more than this process knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import NamedTuple

from mlforge.core.failpoints import reach
from mlforge.core.forgotten import Forgotten
from mlforge.errors import StoreBusy
from mlforge.store.local.io import json_text
from mlforge.store.local.paths import check_format, well_formed
from mlforge.store.objects import keys
from mlforge.store.objects.objects import ConditionFailed, NotChanged, Objects, Tag

_FORMAT = 1
_ATTEMPTS = 20


class Known(NamedTuple):
    """The entities after so many changes, 0 before the first, and the state of the object that says so."""

    changes: int
    forgotten: Forgotten
    tag: Tag | None


class ForgottenObject:
    """The document of a store's bucket, read once while it stays as it is."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known = Known(0, Forgotten(), None)

    def read(self) -> Known:
        """The entities as they are now. Raises IntegrityError for a damaged document."""
        try:
            blob = self._objects.read(keys.FORGOTTEN, self._known.tag)
        except NotChanged:
            return self._known
        where = f"{self._objects.url}/{keys.FORGOTTEN}"
        if blob is None:
            self._known = Known(0, Forgotten(), None)
            return self._known
        with well_formed(where):
            document = json.loads(blob.data)
            check_format(document, where, _FORMAT)
            self._known = Known(int(document["changes"]), Forgotten.from_json(document), blob.tag)
        return self._known

    def after(self, changes: int) -> Forgotten:
        """The entities after so many changes, or more; the document is read where this process knows of fewer."""
        return (self._known if self._known.changes >= changes else self.read()).forgotten

    def write(self, forgotten: Forgotten) -> int:
        """Remember entities together with those that are forgotten already; returns the number of changes.

        Raises StoreBusy where another process has begun with another salt, or others are faster again and again.
        """

        def united(now: Known) -> Known:
            if now.forgotten and now.forgotten.salt != forgotten.salt:
                raise StoreBusy(
                    f"{self._objects.url}/{keys.FORGOTTEN}: another process has begun it at the same time; run the same "
                    "command again"
                )
            both = forgotten.together(now.forgotten)
            return now if both == now.forgotten else Known(now.changes + 1, both, now.tag)

        return self._changed(united)

    def end(self, features: Collection[str], forgotten: Forgotten) -> None:
        """Strike features out of those that may hold rows of entities, unless more was forgotten meanwhile: no change that is counted.

        Raises StoreBusy where others are faster again and again.
        """
        self._changed(lambda now: now._replace(forgotten=now.forgotten.ended(features, forgotten)))

    def _changed(self, change: Callable[[Known], Known]) -> int:
        """Replace the document by what a change makes of it, again where others were faster; returns the number of changes."""
        for _ in range(_ATTEMPTS):
            now = self.read()
            then = change(now)
            if then == now:
                return now.changes
            document = {"format": _FORMAT, "changes": then.changes, **then.forgotten.to_json()}
            if self._is_written(json_text(document).encode(), now.tag):
                reach("forgotten.written")
        raise StoreBusy(
            f"{self._objects.url}/{keys.FORGOTTEN}: others write it all the time; try again"
        )

    def _is_written(self, data: bytes, tag: Tag | None) -> bool:
        """Whether the document was in that state, and was written; it is read again in any case."""
        try:
            if tag is None:
                self._objects.create(keys.FORGOTTEN, data)
            else:
                self._objects.replace(keys.FORGOTTEN, data, tag)
        except ConditionFailed:
            return False
        return True

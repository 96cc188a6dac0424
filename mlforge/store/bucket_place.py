"""A text of a source that names objects of a bucket, and the client of that bucket."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from mlforge.errors import DefinitionError
from mlforge.sources.glob import is_magic
from mlforge.sources.place import SUFFIXES, Place
from mlforge.sources.source_file import Stat
from mlforge.store.addresses import SCHEMES
from mlforge.store.objects.bucket import Bucket
from mlforge.store.objects.objects import Entry, NotReadable, Objects, Tag

_ADDRESS = re.compile(rf"((?:{'|'.join(SCHEMES)})://[^/\s?#]+)(/.*)?", re.DOTALL)


@dataclass(frozen=True)
class BucketPlace:
    """A text of a source: a bucket, and which of its objects count, as `place` says of paths below it.

    one: the name of the only object that is meant, '' where several may be.
    """

    text: str
    bucket: str
    place: Place
    one: str = ""

    @classmethod
    def of(cls, text: str, *, alone: bool = True) -> BucketPlace:
        """The place that a text names: one object that ends in .parquet, a glob, or else all below a prefix.

        Raises DefinitionError for a text that can name no object.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise DefinitionError(
                f"source {text!r} is not the address of objects; write 's3://bucket/transactions/' (or gs://, az://)"
            )
        bucket, key = match[1], (match[2] or "").strip("/")
        last = key.rpartition("/")[2]
        is_folder = text.endswith("/") or not (last.lower().endswith(SUFFIXES) or is_magic(last))
        local = f"/{key}/" if is_folder and key else f"/{key}"
        try:
            place = Place.of(local, Path("/"))
        except DefinitionError as error:
            raise DefinitionError(str(error).replace(repr(local), repr(text))) from None
        one = "" if is_folder or any(map(is_magic, key.split("/"))) else last
        return cls(
            text, bucket, place if alone else replace(place, prefix=_prefix(bucket, place)), one
        )

    @property
    def below(self) -> str:
        """The key that all objects of the place begin with; '' for a whole bucket."""
        return str(self.place.root).strip("/")

    @property
    def start(self) -> str:
        """How all keys begin that may count, without a final slash: narrower than `below` where one object is named."""
        return "/".join(filter(None, (self.below, self.one)))

    def key(self, path: str) -> str | None:
        """The key of a path of listings; None for a path of another place."""
        if not path.startswith(self.place.prefix):
            return None
        return "/".join(filter(None, (self.below, path.removeprefix(self.place.prefix))))

    def path(self, key: str) -> str:
        """The path, in listings, of a key."""
        return self.place.prefix + self.within(key)

    def within(self, key: str) -> str:
        """The key below the place's root."""
        return key[len(self.below) + 1 :] if self.below else key

    def key_of_address(self, address: Path) -> str | None:
        """The key of an address such as `Path("s3://bucket/a.parquet")`; None for one outside the place."""
        scheme, bucket = self.bucket.split("://")
        parts = address.parts
        if parts[:2] != (f"{scheme}:", bucket) or not Path("/", *parts[2:]).is_relative_to(
            self.place.root
        ):
            return None
        return "/".join(parts[2:])

    def looked_at(self, key: str) -> Entry | None:
        """The entry of an object; one of no bytes for an object that may not be looked at: its reading tells why.

        None where there is no such object. Raises StoreError if no answer comes.
        """
        try:
            return self.objects.look(key)
        except NotReadable:
            return Entry(key, 0, 0)

    @property
    def objects(self) -> Objects:
        """The client of the bucket."""
        return _bucket(self.bucket)


def _prefix(bucket: str, place: Place) -> str:
    return f"{bucket}{str(place.root).rstrip('/')}/"


@cache
def _bucket(url: str) -> Objects:
    """The bucket at an address, with one client for all sources of the process."""
    return Bucket(url)


def stat_of(entry: Entry) -> Stat:
    """A stat that tells the object's state."""
    return entry.size, entry.modified * 1_000, 0, mark_of(entry.tag)


def mark_of(tag: Tag) -> int:
    """A number for the state of an object; 0 where its server does not tell."""
    text = (tag.e_tag or "").removeprefix("W/").strip(
        '"'
    ) or tag.version  # a listing has no version
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16) if text else 0

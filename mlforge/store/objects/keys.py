"""Names of objects below a store's prefix.

user_spend/_latest.json                which version is served, the books, and what is going
user_spend/1.0.1/.meta.json            a version's manifest, created once
user_spend/_parts/<hash>.parquet       parts of versions' tables, shared by versions
user_spend/_partials/<hash>.parquet    the events of a source's files
user_spend/_lineage/<hash>.json        pieces of manifests' long lists
user_spend/_tasks/                     what the tasks of a build share until it publishes
user_spend/_sources.json.gz            what files were last seen
user_spend/_audit.json                 what the last audit found
_metadata/store.json                   {"id", "created_at"}: which store this is
_metadata/locks/<model>.json           the lock that each model was registered with
_metadata/services/<service>/1.0.0.json   what a version of a service promises
_metadata/definitions/<hash>.json      what features and services definitions have that share the store
_metadata/forgotten.json               salted hashes of the entities that are forgotten
_metadata/renamed.json                 the names that features had before

A feature that was renamed stays in the folder of its first name, which is what `name` means below; the folder of its present one has
a `_latest.json` alone, which leads there.
"""

from __future__ import annotations

from mlforge.core.values import Version

VERSIONS = "_versions"
LATEST, SOURCES, AUDIT = "_latest.json", "_sources.json.gz", "_audit.json"
PARTS, PARTIALS, LINEAGE = "_parts", "_partials", "_lineage"
TASKS = "_tasks"
IDENTITY, LOCKS = "_metadata/store.json", "_metadata/locks"
SERVICES, FORGOTTEN = "_metadata/services", "_metadata/forgotten.json"
DEFINITIONS = "_metadata/definitions"
RENAMED = "_metadata/renamed.json"


def meta(name: str, version: Version) -> str:
    """A version's manifest. No folder of its own, as some servers list folders that have nothing in them any more."""
    return f"{name}/{VERSIONS}/{version}.json"


def part(name: str, hash_: str) -> str:
    """A part of a table, by the hash of its bytes."""
    return f"{name}/{PARTS}/{hash_}.parquet"


def partial(name: str, hash_: str) -> str:
    """The events of a file."""
    return f"{name}/{PARTIALS}/{hash_}.parquet"


def piece(name: str, hash_: str) -> str:
    """A piece of a long list."""
    return f"{name}/{LINEAGE}/{hash_}.json"


def task(name: str, file: str) -> str:
    """A file that tasks of a build share."""
    return f"{name}/{TASKS}/{file}"


def stem(key: str) -> str:
    """The last part of a key, without `.json`: a version, or a model."""
    return key.rpartition("/")[2].removesuffix(".json")

"""A bucket of S3, Google Cloud Storage, Azure or a server that speaks as they do, by obstore (extra `cloud`).

Credentials are found as the cloud's own tools find them: environment, service account, instance or pod identity; and the
files of AWS by boto3, where that is installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from mlforge.core.paths import path_of
from mlforge.core.values import to_us
from mlforge.errors import MissingExtra, StoreError, StoreUnavailable, UnsupportedStore
from mlforge.store.objects import refusals
from mlforge.store.objects.objects import (
    Blob,
    ConditionFailed,
    Entry,
    Level,
    NoAnswer,
    NotChanged,
    NotReadable,
    Objects,
    Tag,
)
from mlforge.store.objects.unanswered import Unanswered

_RETRIES = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
_CLIENT = {"allow_http": True}  # an endpoint that is given as http:// is meant so
_CHUNK = 8 << 20
_used_by: list[int] = []
"""The process whose client has been at work, as its forks have it, too."""


class Bucket(Objects):
    """The objects below an address such as `s3://bucket/prefix`; nothing is asked before the first call.

    options: obstore's configuration of the cloud, such as `{"aws_endpoint": "http://localhost:9000"}`.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        self.url = url
        self._options = dict(options or {})
        self._opened: tuple[int, Any] | None = None
        self._unanswered = Unanswered(self._read)

    def at(self, url: str) -> Bucket:
        """A client with the same configuration."""
        return Bucket(url, self._options)

    def read(self, key: str, unless: Tag | None = None) -> Blob | None:
        """A GET, with If-None-Match where a state is known."""
        blob = self._unanswered.answer(key, lambda: self._read(key, unless))
        if blob is not None:
            self._unanswered.note([(key, len(blob.data))])
        return blob

    def _read(self, key: str, unless: Tag | None = None) -> Blob | None:
        obstore = _obstore()
        options = {"if_none_match": unless.e_tag} if unless and unless.e_tag else None
        with self._errors(f"read {key}", of_object=True):
            try:
                result = obstore.get(self._store, key, options=options)
                data = bytes(result.bytes())
            except FileNotFoundError as error:
                _check_of_object(error)
                return None
            except obstore.exceptions.NotModifiedError:
                raise NotChanged from None
            return Blob(data, Tag(result.meta.get("e_tag"), result.meta.get("version")))

    def create(self, key: str, data: bytes) -> Tag:
        """A PUT with If-None-Match, or generation 0."""
        return self._conditional(key, data, "create")

    def replace(self, key: str, data: bytes, expected: Tag) -> Tag:
        """A PUT with If-Match, or the generation."""
        return self._conditional(
            key, data, {k: v for k, v in expected._asdict().items() if v is not None}
        )

    def put(self, key: str, data: bytes | Path) -> Tag:
        """A PUT, in several pieces for a large file."""
        obstore = _obstore()
        with self._errors(f"write {key}"):
            written = obstore.put(self._store, key, data)
        return Tag(written.get("e_tag"), written.get("version"))

    def download(self, key: str, path: Path) -> bool:
        """A GET that is written piece by piece."""
        return self._unanswered.answer(key, lambda: self._download(key, path))

    def _download(self, key: str, path: Path) -> bool:
        obstore = _obstore()
        with self._errors(f"read {key}", of_object=True):
            try:
                result = obstore.get(self._store, key)
            except FileNotFoundError as error:
                _check_of_object(error)
                return False
            with path.open("wb") as file:
                for chunk in result.stream(min_chunk_size=_CHUNK):
                    file.write(chunk)
        return True

    def look(self, key: str) -> Entry | None:
        """A HEAD; a GET, too, where nothing is there: the answer to a HEAD does not tell whether it is the bucket that is gone."""
        return self._unanswered.answer(key, lambda: self._look(key))

    def _look(self, key: str) -> Entry | None:
        obstore = _obstore()
        with self._errors(f"look at {key}", of_object=True):
            try:
                return _entry(obstore.head(self._store, key))
            except FileNotFoundError:
                pass
            try:
                return _entry(obstore.get(self._store, key).meta)
            except FileNotFoundError as error:
                _check_of_object(error)
                return None

    def delete(self, keys: Sequence[str]) -> None:
        """DELETEs, many in a request where the cloud has such."""
        if keys:
            with self._errors(f"delete {keys[0]}"):
                try:
                    _obstore().delete(self._store, list(keys))
                except FileNotFoundError as error:
                    _check_of_object(error)
                    for key in keys if len(keys) > 1 else ():
                        self.delete([key])

    def entries(self, folder: str) -> list[Entry]:
        """A LIST, page by page."""
        with self._errors(f"list {folder}"):
            pages = _obstore().list(self._store, folder or None, chunk_size=1000)
            entries = [_entry(meta) for page in pages for meta in page]
        self._unanswered.note_listed(entries)
        return entries

    def level(self, folder: str) -> Level:
        """A LIST with a delimiter."""
        with self._errors(f"list {folder or 'the prefix'}"):
            listing = _obstore().list_with_delimiter(self._store, folder or None)
        folders = [prefix.rstrip("/") for prefix in listing["common_prefixes"]]
        level = Level([_entry(meta) for meta in listing["objects"]], folders)
        self._unanswered.note_listed(level.entries)
        return level

    @property
    def is_in_use(self) -> bool:
        """Whether this process has the client's threads."""
        return _used_by == [os.getpid()]

    @property
    def _store(self) -> Any:
        """The client, of this process. Raises StoreError in a fork of a process that had its threads."""
        _take_in_use(self.url)
        if self._opened is None or self._opened[0] != os.getpid():
            from_url = _obstore().store.from_url
            with self._errors("open it"):
                store = from_url(
                    self.url,
                    config=self._options,  # the names of each cloud's configuration, as obstore knows them
                    client_options=_CLIENT,
                    retry_config=_RETRIES,
                    **_credentials(self.url, self._options),
                )
            self._opened = os.getpid(), store
        return self._opened[1]

    def _conditional(self, key: str, data: bytes, mode: Any) -> Tag:
        obstore = _obstore()
        with self._errors(f"write {key}"):
            try:
                written = obstore.put(self._store, key, data, mode=mode, use_multipart=False)
            except (
                obstore.exceptions.AlreadyExistsError,
                obstore.exceptions.PreconditionError,
                FileNotFoundError,  # what was to be replaced is gone
            ) as error:
                _check_of_object(error)
                raise ConditionFailed(
                    f"{self.url}: {key} is not as it was read; try again"
                ) from error
        return Tag(written.get("e_tag"), written.get("version"))

    @contextmanager
    def _errors(self, deed: str, *, of_object: bool = False) -> Iterator[None]:
        """Turn obstore's errors into StoreUnavailable, with the address and the advice that fits.

        of_object: NotReadable, where the server refuses the object alone, and NoAnswer, where that may be.
        """
        exceptions = _obstore().exceptions
        try:
            yield
        except (exceptions.BaseError, OSError, ValueError) as error:
            advice = "its server gives no good answer"
            if isinstance(
                error, (exceptions.UnauthenticatedError, exceptions.PermissionDeniedError)
            ):
                advice = "the credentials that were found may not do this"
            elif isinstance(error, exceptions.UnknownConfigurationKeyError):
                advice = "options has a key that this cloud does not know"
            advice = refusals.advice(str(error)) or advice
            words = refusals.brief(str(error))
            if refusals.tells_no_state(str(error)):
                raise UnsupportedStore(
                    f"{self.url}: its server does not tell the state of what it writes, so that it can keep to no condition; no store "
                    f"can be kept there ({words})"
                ) from error
            is_answer = of_object and isinstance(error, exceptions.BaseError)
            kind = _kind(str(error)) if is_answer else StoreUnavailable
            raise kind(f"{self.url}: cannot {deed}: {advice} ({words})") from error


def _check_of_object(error: Exception) -> None:
    """Raise the error again where it is no missing object that it tells of, but a missing bucket."""
    if refusals.is_of_bucket(str(error)):
        raise error


def _kind(told: str) -> type[StoreError]:
    """The kind of an error of a request for one object, by its text."""
    if refusals.is_of_object(told):
        return NotReadable
    return NoAnswer if refusals.may_be_of_object(told) else StoreUnavailable


def _take_in_use(url: str) -> None:
    """Note that this process has the client's threads from now on: a fork of it has none, and would wait forever."""
    if not _used_by:
        _used_by.append(os.getpid())
    elif _used_by[0] != os.getpid():
        raise StoreError(
            f"{url}: this process was forked from one that had asked a bucket before, and its client does not survive that; "
            "fork before, or start processes afresh ('spawn')"
        )


def _credentials(url: str, options: Mapping[str, str]) -> dict[str, Any]:
    """boto3's way to credentials of AWS, for profiles, SSO and assumed roles, where it is installed and there are files of these.

    obstore finds all others by itself.
    """
    has_keys = (
        any("access_key" in key.lower() for key in options) or "AWS_ACCESS_KEY_ID" in os.environ
    )
    files = [
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
    ]
    if not url.startswith("s3://") or has_keys or not any(path_of(f).is_file() for f in files):
        return {}
    try:
        session = import_module("boto3").Session()
        provider = import_module("obstore.auth.boto3").Boto3CredentialProvider(session)
    except ImportError:
        return {}
    except Exception as error:  # a profile that is not there, a file that cannot be understood
        raise StoreUnavailable(f"{url}: boto3 finds no credentials of AWS: {error}") from error
    return {"credential_provider": provider}


def _entry(meta: Mapping[str, Any]) -> Entry:
    modified = to_us(meta["last_modified"])
    tag = Tag(meta.get("e_tag"), meta.get("version"))
    return Entry(meta["path"], meta["size"], modified, tag)


def _obstore() -> Any:
    """The client library; MissingExtra where it is not installed."""
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise MissingExtra.of("a store or source in a bucket", "cloud") from error
    return obstore

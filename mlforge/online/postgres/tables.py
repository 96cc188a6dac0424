"""Tables of the online store, and the statements on them.

`{prefix}_features` has the books of each feature, as the JSON object that Redis has as a hash, and until when books and
rows live by the server's clock; null is for ever. `{prefix}_rows` has the rows. The life of rows is their feature's: to renew it
writes one row, whatever their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from psycopg import sql

_STAGING = "mlforge_staging"


@dataclass(frozen=True)
class Tables:
    """The two tables of a prefix, and statements with their names in place."""

    prefix: str

    @cached_property
    def create(self) -> bytes:
        """Both tables, unless they are there. Sessions that come together take turns."""
        return self._with(
            """
            select pg_advisory_xact_lock(hashtext({lock}));
            create table if not exists {features} (
              feature text collate "C" primary key,
              fields text,
              listed boolean not null default false,
              books_until timestamptz,
              rows_until timestamptz
            );
            create table if not exists {rows} (
              feature text collate "C",
              digest bytea,
              json text not null,
              primary key (feature, digest)
            )
            """
        )

    @cached_property
    def stage(self) -> bytes:
        """The session's own table, through which rows come in; each transaction ends with it empty."""
        return self._with(
            "create temporary table if not exists {staging} (digest bytea, json text) on commit delete rows"
        )

    @cached_property
    def copy(self) -> bytes:
        """Rows into the staging table."""
        return self._with("copy {staging} (digest, json) from stdin (format binary)")

    @cached_property
    def upsert(self) -> bytes:
        """The staged rows into the feature's; rows that are the same already are not written."""
        return self._with(
            """
            insert into {rows} as r (feature, digest, json) select %s, digest, json from {staging}
            on conflict (feature, digest) do update set json = excluded.json where r.json <> excluded.json
            """
        )

    @cached_property
    def lock(self) -> bytes:
        """The books that live, and whether rows have outlived their time; other writers of the feature wait."""
        return self._with(_LOCK)

    @cached_property
    def enter(self) -> bytes:
        """A feature without books, unless it is there."""
        return self._with("insert into {features} (feature) values (%s) on conflict do nothing")

    @cached_property
    def begin(self) -> bytes:
        """Books of a push that begins; their life is set where they are new."""
        return self._with(
            """
            update {features} set fields = %(fields)s, listed = true, books_until = case when %(is_new)s
              then now() + %(life)s * interval '1 microsecond' else books_until end
            where feature = %(feature)s
            """
        )

    @cached_property
    def record(self) -> bytes:
        """Books as they are from now on, with their life."""
        return self._with(
            """
            update {features} set fields = %(fields)s, books_until = now() + %(life)s * interval '1 microsecond'
            where feature = %(feature)s
            """
        )

    @cached_property
    def note(self) -> bytes:
        """Books as they are from now on, with the life that they have."""
        return self._with("update {features} set fields = %s where feature = %s")

    @cached_property
    def live(self) -> bytes:
        """The full life of a feature's rows, for ever for null; books go within half of it, as they never outlive rows."""
        return self._with(
            """
            update {features} set rows_until = now() + %(ttl)s * interval '1 second',
              books_until = least(books_until, now() + %(ttl)s * interval '0.5 second')
            where feature = %(feature)s
            """
        )

    @cached_property
    def live_alone(self) -> bytes:
        """As `live` for a feature that nobody pushes; that of a pushed one is its pushes' to tell."""
        return self._with(
            """
            update {features} set rows_until = now() + %(ttl)s * interval '1 second'
            where feature = %(feature)s and (fields is null or books_until <= now())
            """
        )

    @cached_property
    def forget(self) -> bytes:
        """No books."""
        return self._with(
            "update {features} set fields = null, books_until = null where feature = %s"
        )

    @cached_property
    def unlist(self) -> bytes:
        """A feature off the list."""
        return self._with("update {features} set listed = false where feature = %s")

    @cached_property
    def listed(self) -> bytes:
        """The features on the list."""
        return self._with("select feature from {features} where listed order by feature")

    @cached_property
    def remove(self) -> bytes:
        """Rows by their digests."""
        return self._with("delete from {rows} where feature = %s and digest = any(%s)")

    @cached_property
    def clear(self) -> bytes:
        """So many rows of a feature."""
        return self._with(
            """
            delete from {rows} where (feature, digest) in (select feature, digest from {rows} where feature = %s limit %s)
            """
        )

    @cached_property
    def scan(self) -> bytes:
        """The next digests of the rows that live, behind one."""
        return self._with(
            """
            select digest from {rows} join {features} f using (feature)
            where feature = %s and digest > %s and (f.rows_until is null or f.rows_until > now())
            order by digest limit %s
            """
        )

    @cached_property
    def count(self) -> bytes:
        """The number of rows that live, by feature."""
        return self._with(
            """
            select feature, count(*) from {rows} join {features} f using (feature)
            where feature = any(%s) and (f.rows_until is null or f.rows_until > now()) group by feature
            """
        )

    @cached_property
    def timeline(self) -> bytes:
        """The system and its timeline, which a standby that takes over counts on; null on a standby."""
        return self._with(
            """
            select case when not pg_is_in_recovery() then
              system_identifier || '-' || substring(pg_walfile_name(pg_current_wal_lsn()) for 8) end
            from pg_control_system()
            """
        )

    @cached_property
    def fetch(self) -> bytes:
        """Books by feature, and rows by position: of one instant, since it is one statement."""
        return self._with(
            """
            select 0, feature, fields from {features}
            where feature = any(%(features)s) and fields is not null and (books_until is null or books_until > now())
            union all
            select q.position, null, r.json
            from unnest(%(names)s::text[], %(digests)s::bytea[]) with ordinality q(feature, digest, position)
            join {rows} r on r.feature = q.feature and r.digest = q.digest
            join {features} f on f.feature = q.feature and (f.rows_until is null or f.rows_until > now())
            """
        )

    def _with(self, statement: str) -> bytes:
        composed = sql.SQL(statement).format(
            features=sql.Identifier(f"{self.prefix}_features"),
            rows=sql.Identifier(f"{self.prefix}_rows"),
            staging=sql.Identifier(_STAGING),
            lock=sql.Literal(f"mlforge {self.prefix}"),
        )
        return composed.as_bytes(None)


_LOCK = """
select case when books_until is null or books_until > now() then fields end,
  rows_until is not null and rows_until <= now()
from {features} where feature = %s for update"""

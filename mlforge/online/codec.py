"""Books as the fields of a hash that a person can read with HGETALL.

The hash is input: anybody who reaches the server can have written it. Fields of the wrong shape raise
BooksDamaged, which names where they lie.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlforge.core.expression.columns import LANGUAGE, Derived
from mlforge.core.schema import KEY_DTYPES, Column, Schema
from mlforge.core.values import Version, from_iso, to_iso
from mlforge.errors import BooksDamaged, OnlineError, StoreError
from mlforge.online.books import UNRECORDED, Evidence, OnlineBooks, Owner, Target
from mlforge.online.decoding import Misfit, SameDtype, decode_rows, decoder
from mlforge.services.description import default_of

FORMAT = "1"
LAYOUTS = {FORMAT: "json", "2": "packed"}
"""The layout of rows by the format of their books: a reader that knows of no other layout refuses them."""
_PACKED = "packed "
"""Before the version in books of packed rows. Earlier releases set the format anew, and must not take the version for theirs."""
ONLY_JSON = {FORMAT: LAYOUTS[FORMAT]}
_FOREVER = "none"
_OWN_FIELDS = frozenset({"fence", "generation", "owner_place", "pending", "renewed_at"})
"""Fields that show a hash to be books, whatever else it lacks."""


def fence_text(target: Target | None) -> str:
    """The target's fence and store as the scripts compare them; empty for none."""
    return "" if target is None else "{} {} {}".format(*target.fence, target.store)


def target_text(target: Target) -> str:
    """The target as JSON; equal targets have equal texts."""
    return _json(
        {
            "version": target.version,
            "generation": target.generation,
            "as_of": to_iso(target.as_of),
            "content": target.content,
            "store": target.store,
        }
    )


def owner_text(owner: Owner) -> str:
    """Facts of an owner beside its id, as JSON."""
    return _json(
        {
            "project": owner.project,
            "root": owner.root,
            "place": owner.place,
            "host": owner.host,
            "since": to_iso(owner.since),
        }
    )


def to_fields(target: Target, books: OnlineBooks, ttl: int | None) -> dict[str, str]:
    """The fields of books whose target is done and that have none pending; their owner stays as it is."""
    return {
        "version": target.version,
        "generation": str(target.generation),
        "as_of": to_iso(target.as_of) or "",
        "content": target.content,
        "store": target.store,
        "rows": str(books.rows),
        "pushed_at": to_iso(books.pushed_at) or "",
        "renewed_at": to_iso(books.renewed_at) or "",
        "ttl": ttl_text(ttl),
        "keys": _schema_text(books.keys),
        "columns": _schema_text(books.columns),
        "empty": _json(dict(books.empty)),
        "pending": "[]",
        "losses": evidence_text(books.evidence),
        **_history_field(books.evidence),
        "derive": _derive_text(books),
        "meaning": f"{target.version} {books.meaning}" if books.meaning else "",
        **({"defaults": _json(dict(books.defaults))} if books.defaults else {}),
        **({"formerly": _json(list(books.formerly))} if books.formerly else {}),
    }


def ttl_text(ttl: int | None) -> str:
    """The TTL in seconds, or the word for none."""
    return _FOREVER if ttl is None else str(ttl)


def evidence_text(evidence: Evidence | None) -> str:
    """The evidence as readable text; empty where the server reports none."""
    return "" if evidence is None else f"{evidence.evicted} {evidence.server}"


def _history_field(evidence: Evidence | None) -> dict[str, str]:
    """The history and the mark, and the evidence that they belong to: a release before writes that without them."""
    if evidence is None or not evidence.history:
        return {}
    return {"history": f"{evidence.history} {evidence.mark} {evidence_text(evidence)}"}


def from_fields(
    fields: Mapping[str, str], where: str, layouts: Mapping[str, str] = ONLY_JSON
) -> OnlineBooks | None:
    """The books of a hash, None for an absent one. layouts: of the rows which the books may tell of, by format.

    Raises BooksDamaged for books that cannot be read, OnlineError if `where` holds something else.
    """
    if not fields:
        return None
    if fields.get("format") is None and _OWN_FIELDS & fields.keys():
        raise BooksDamaged(
            f"{where} is damaged (there is no 'format'); delete it and the next push makes it anew"
        )
    layout = layouts.get(fields.get("format", ""))
    if layout is None:
        raise OnlineError(
            f"{where} holds no books that this mlforge reads; use another prefix or db, "
            "or the mlforge that wrote it"
        )
    try:
        "".join([*fields, *fields.values()]).encode()
        return _parsed(fields, layout)
    except RecursionError:
        reason = "it is nested too deeply"
    except KeyError as error:
        reason = f"there is no {error}"
    except (
        ArithmeticError,
        AttributeError,
        Misfit,
        StoreError,
        TypeError,
        ValueError,
    ) as error:
        shown = " ".join(str(error).split())
        reason = shown if len(shown) <= 200 else f"{shown[:197]}..."
    raise BooksDamaged(
        f"{where} is damaged ({reason}); delete it and the next push makes it anew"
    ) from None


def format_of(layout: str) -> str:
    """The format of books that tell of rows in a layout."""
    return next(format for format, name in LAYOUTS.items() if name == layout)


def version_text(version: str, layout: str) -> str:
    """A version as books of rows in a layout have it."""
    return version if layout == LAYOUTS[FORMAT] else f"{_PACKED}{version}"


def _version(text: str, layout: str) -> Version:
    if layout == LAYOUTS[FORMAT]:
        return Version.parse(text)
    if not text.startswith(_PACKED):
        raise ValueError(f"its version is {text[:40]!r}, and not one of packed rows")
    return Version.parse(text.removeprefix(_PACKED))


def _parsed(fields: Mapping[str, str], layout: str) -> OnlineBooks:
    pending = tuple(map(_target, _list(fields.get("pending", "[]"))))
    owner = _owner(fields)
    if "version" not in fields:
        return OnlineBooks(None, pending, owner=owner, layout=layout)
    target = Target(
        str(_version(fields["version"], layout)),
        _count(fields["generation"]),
        from_iso(fields["as_of"] or None),
        fields.get("content", ""),
        fields.get("store", ""),
    )
    columns = _schema(fields["columns"])
    keys = _schema(fields["keys"])
    if unfit := [key.dtype for key in keys if key.dtype not in KEY_DTYPES]:
        raise ValueError(f"{unfit[0]} is no dtype of a key")
    return OnlineBooks(
        target=target,
        pending=pending,
        rows=_count(fields["rows"]),
        pushed_at=_instant(fields["pushed_at"]),
        renewed_at=_instant(fields["renewed_at"]),
        keys=keys,
        columns=columns,
        empty=_empty(fields["empty"], columns),
        evidence=_evidence(fields.get("losses", ""), fields.get("history", "")),
        ttl=_ttl(fields.get("ttl", "")),
        owner=owner,
        **_derive(fields.get("derive", "")),
        meaning=_meaning(fields.get("meaning", ""), target),
        defaults=_defaults(fields.get("defaults", "{}")),
        formerly=tuple(map(_text, _list(fields.get("formerly", "[]")))),
        layout=layout,
    )


def _derive(text: str) -> dict[str, Any]:
    """Derived columns and their inputs, as arguments of books."""
    if not text:
        return {}
    document = _mapping(json.loads(text))
    if document["language"] > LANGUAGE:
        raise ValueError("its derived columns are written for a newer mlforge; upgrade this one")
    columns = [_mapping(column) for column in document["columns"]]
    derived = (Derived(_text(c["name"]), _text(c["expression"])) for c in columns)
    inputs = (Column(_text(c["name"]), _text(c["dtype"])) for c in document["inputs"])
    return {"derived": tuple(derived), "inputs": tuple(inputs)}


def _defaults(text: str) -> Mapping[str, Any]:
    """Described defaults by column; ValueError for what describes none."""
    defaults = _mapping(json.loads(text))
    for value in defaults.values():
        default_of(value)
    return defaults


def _derive_text(books: OnlineBooks) -> str:
    """Derived columns and their inputs as JSON; empty where there are none."""
    if not books.derived:
        return ""
    columns = [{"name": c.name, "expression": c.expression} for c in books.derived]
    inputs = [{"name": c.name, "dtype": c.dtype} for c in books.inputs]
    return _json({"language": LANGUAGE, "columns": columns, "inputs": inputs})


def _meaning(text: str, target: Target) -> str:
    """The meaning of the columns; empty where the text is of another version than a release before has pushed since."""
    version, _, meaning = text.partition(" ")
    return meaning if version == target.version else ""


def _owner(fields: Mapping[str, str]) -> Owner | None:
    store = fields.get("owner", "")
    if not store:
        return None
    place = _mapping(json.loads(fields.get("owner_place", "{}")))
    texts = {name: _text(place.get(name, "")) for name in ("project", "root", "place", "host")}
    since = place.get("since")
    return Owner(store, since=0 if since is None else _instant(_text(since)), **texts)


def _empty(text: str, columns: Schema) -> Mapping[str, Any]:
    """The values of empty windows, by column, in the dtypes of training."""
    row = _mapping(json.loads(text))
    decode_rows([row], SameDtype.of(columns))
    if unnamed := row.keys() - {column.name for column in columns}:
        raise ValueError(f"its columns lack {min(unnamed)!r}, which has a value of empty windows")
    return row


def _evidence(text: str, history_text: str) -> Evidence | None:
    if not text:
        return None
    evicted, _, server = text.partition(" ")
    evidence = Evidence(server, int(evicted))
    history, _, rest = history_text.partition(" ")
    mark, _, of = rest.partition(" ")
    return replace(evidence, history=history, mark=mark) if of == text else evidence


def _ttl(text: str) -> int | None:
    if text == _FOREVER:
        return None
    return int(text) if text else UNRECORDED


def _target(document: object) -> Target:
    fields = _mapping(document)
    as_of, generation = fields["as_of"], fields["generation"]
    if type(generation) is not int or generation < 0:
        raise ValueError(f"generation {generation!r} is no number of one")
    return Target(
        str(Version.parse(fields["version"])),
        generation,
        None if as_of is None else _instant(_text(as_of)),
        _text(fields.get("content", "")),
        _text(fields.get("store", "")),
    )


def _schema(text: str) -> Schema:
    columns = tuple(Column(**_mapping(column)) for column in _list(text))
    for column in columns:
        for value in (column.name, column.dtype, column.aggregation or "", column.window or ""):
            _text(value)
        try:
            decoder(column.dtype)
        except KeyError:
            raise ValueError(f"{column.name!r} is {column.dtype}, which is not known") from None
    if len({column.name for column in columns}) < len(columns):
        raise ValueError("a column is named twice")
    return columns


def _schema_text(schema: Schema) -> str:
    documents = [
        {"name": column.name, "dtype": column.dtype}
        | ({"aggregation": column.aggregation} if column.aggregation else {})
        | ({"window": column.window} if column.window else {})
        for column in schema
    ]
    return _json(documents)


def _list(text: str) -> list[Any]:
    value = json.loads(text)
    if not isinstance(value, list):
        raise ValueError(f"a {type(value).__name__} stands where a list should")
    return value


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} stands where an object should")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} stands where a text should")
    value.encode()
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise ValueError(f"{text[:40]!r} is no number of anything")
    return int(text)


def _instant(text: str) -> int:
    instant = from_iso(text or None)
    return 0 if instant is None else instant


def _json(document: object) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)

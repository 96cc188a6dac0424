"""Facts that a server tells of itself and that show whether it may have lost rows since they were counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import uuid4

from mlforge.online.books import Evidence
from mlforge.online.redis import resp

_SECTIONS = ("server", "stats", "replication", "errorstats")
INFO = b"".join(resp.command("INFO", section) for section in _SECTIONS)
REPLIES = len(_SECTIONS)

_KEEPS_MARKS = "# Errorstats"
_FULL = ("errorstat_ERRORSTATS_OVERFLOW", "errorstat_ERRORSTATS_DISABLED")
_MARK = "MLFORGE"
_ERROR = "errorstat_"

# CONFIG RESETSTAT sets the count of evictions to 0 and tells nobody. It forgets the kinds of errors, too:
# so an error of a kind of its own, made once, is there as long as the counts are those of before.
_MAKE_ERROR = "return redis.error_reply(ARGV[1] .. ' is no error: mlforge marks since when this server counts evictions')"


def facts_of(replies: Sequence[str]) -> dict[str, str]:
    """The fields in the texts of INFO; the title of a section is a field without a value."""
    lines = (line.partition(":") for reply in replies for line in reply.splitlines())
    return {name: value for name, _, value in lines}


def lacks_mark(facts: Mapping[str, str]) -> bool:
    """Whether the server can keep a mark and has none."""
    is_able = _KEEPS_MARKS in facts and not any(full in facts for full in _FULL)
    return is_able and not _mark(facts)


def marking() -> bytes:
    """The command that leaves a new mark on a server, which answers it with an error."""
    return resp.command("EVAL", _MAKE_ERROR, "0", f"{_MARK}{uuid4().hex[:16]}")


def is_replica(facts: Mapping[str, str]) -> bool:
    """Whether the server follows another."""
    return facts.get("role") == "slave"


def evidence_of(nodes: Sequence[Mapping[str, str]]) -> Evidence | None:
    """The evidence of a server, or of all nodes of a cluster; None where one of them does not report its own."""
    nodes = sorted(nodes, key=lambda facts: facts.get("run_id", ""))
    runs = [facts.get("run_id", "") for facts in nodes]
    evicted = [facts.get("evicted_keys") for facts in nodes]
    if not all(runs) or None in evicted:
        return None
    return Evidence(
        " ".join(runs),
        sum(int(count or 0) for count in evicted),
        ",".join(facts.get("master_replid", "") for facts in nodes),
        ",".join(map(_mark, nodes)),
        any(map(is_replica, nodes)),
    )


def _mark(facts: Mapping[str, str]) -> str:
    """The mark that the server has; of two, which are left by two pushes at once, the first by name."""
    marks = (name.removeprefix(_ERROR) for name in facts if name.startswith(_ERROR + _MARK))
    return min(marks, default="")

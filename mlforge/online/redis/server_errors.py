"""The meaning of a server's refusals: client errors as mlforge's."""

from __future__ import annotations

from mlforge.errors import MissingExtra, OnlineError, OnlineRefused, OnlineUnavailable

try:
    import redis
except ImportError:
    raise MissingExtra.of("RedisStore", "redis") from None

_CLUSTER = (
    "is a Redis Cluster ({error}): say so, with RedisStore.from_url(url, cluster=True) or ?cluster=true at the end of "
    "the URL, or give RedisStore a server that is not part of a cluster"
)
# Kinds of refusal, the first that fits; `{error}` is the server's own words.
_REFUSALS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (redis.AuthenticationError, redis.exceptions.NoPermissionError),
        "refused the user or password ({error}); give RedisStore the right ones",
    ),
    (
        (
            redis.exceptions.MovedError,
            redis.exceptions.AskError,
            redis.exceptions.ClusterCrossSlotError,
            redis.exceptions.ClusterDownError,
        ),
        _CLUSTER,
    ),
    ((redis.ReadOnlyError,), "is a read-only replica; give RedisStore the primary's address"),
    ((redis.OutOfMemoryError,), "is out of memory; raise its maxmemory, or lower the ttl"),
)
_REFUSAL_CODES = {
    "MISCONF": "answers, but refuses writes until it can save to its disk ({error}); see to its disk and its log",
    "NOREPLICAS": "answers, but refuses writes for want of replicas ({error}); see to its replicas",
    "MASTERDOWN": "is a replica that has lost its primary ({error}); give RedisStore the primary's address",
    "CROSSSLOT": _CLUSTER,
    "CLUSTERDOWN": _CLUSTER,
    "MOVED": _CLUSTER,
}


class Refused(OnlineRefused):
    """The server's own words, where they have no wording of ours."""

    def __init__(self, server: str, reply: str) -> None:
        self.reply = reply
        super().__init__(f"{server} refused: {reply}")


def meant(error: Exception, server: str) -> Exception:
    """The mlforge error for a client error: OnlineRefused for a refusal, OnlineUnavailable for a server that does not answer."""
    for kinds, refusal in _REFUSALS:
        if isinstance(error, kinds):
            return OnlineRefused(f"{server} {refusal.format(error=error)}")
    if isinstance(error, redis.exceptions.InvalidResponse):
        return OnlineUnavailable(
            f"{server} answers, but not as Redis does ({error}); give RedisStore the host and port of a Redis, "
            "and ssl=True where it takes TLS alone"
        )
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return OnlineUnavailable(
            f"{server} does not answer ({error}); start a server there, or give RedisStore "
            "the host and port of a running one"
        )
    for code, refusal in _REFUSAL_CODES.items():
        if str(error).startswith(code):
            return OnlineRefused(f"{server} {refusal.format(error=error)}")
    if isinstance(error, redis.ResponseError):
        return Refused(server, str(error))
    return OnlineError(f"{server}: {type(error).__name__}: {error}")

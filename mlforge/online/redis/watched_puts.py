"""Rows that the server's own commands write while it watches the books: in about half of its time, as no script takes each row over.

A transaction is void if anybody has changed the books since their fence was read, so that a fence holds as it does in a script. Whatever
is not as it should be is left to the script: another push's books, a server without a command, a user without the right to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from mlforge.online.chunks import Rows
from mlforge.online.redis import resp
from mlforge.online.redis.layouts import Write

if TYPE_CHECKING:
    from mlforge.online.redis.client import Server

_CHUNKS = 2
"""Chunks in a transaction: they block the server for about as long as one does in a script. Fewer take the client longer, more do not save it anything."""
_TRANSACTIONS = 10
"""Further rows are left to the script: its calls are sent ahead of their replies, so that more rows are encoded meanwhile."""
_EXEC = resp.command("EXEC")
_GIVE_UP = resp.command("DISCARD") + resp.command("UNWATCH")  # the one or the other may be refused
_LOOKS, _GIVES_UP = 4, 2  # replies to `_look`, and to giving up
_LACKING = ("unknown command", "NOPERM", "no permissions")
"""Words of a server that does not do this for anybody, or not for us."""


def put(
    server: Server,
    write: Write,
    chunks: Iterable[Rows],
    by_script: Callable[[Iterable[Rows]], int],
) -> int:
    """Write the rows, some chunks at once; returns their number. by_script: writes rows, or raises the refusal, where transactions do not."""
    has_fence = not write.fence.startswith(" ")
    if not (has_fence and server.writes_watched):
        return by_script(chunks)
    each = iter(chunks)
    blocks = islice(_blocks(each), _TRANSACTIONS)
    written, block = 0, next(blocks, [])
    following: list[Rows] = []
    with server.asking_on_one() as ask:
        look = ask(_look(write), _LOOKS) if block else []
        while block and _is_fenced(look, write):
            following = next(blocks, [])
            calls = [*_life(look, write), _rows(write, block), _EXEC]
            more = (_look(write), _LOOKS) if following else (b"", 0)
            answers = ask(b"".join([*calls, more[0]]), len(calls) + more[1])
            done, look = answers[: len(calls)], answers[len(calls) :]
            if not _are_done(done):
                look = [*done, *look]
                break
            written += sum(len(rows.hashes) for rows in block)
            block, following = following, []
        if block:
            server.writes_watched = not any(map(_is_lacking, look))
            ask(_GIVE_UP, _GIVES_UP)
    left = chain(block, following, each)
    first = next(left, None)
    return written if first is None else written + by_script(chain([first], left))


def _blocks(each: Iterator[Rows]) -> Iterator[list[Rows]]:
    while block := [*islice(each, _CHUNKS)]:
        yield block


def _look(write: Write) -> bytes:
    """The commands that watch the books, read what a transaction depends on, and begin it: nothing is sent into one that was refused."""
    key = write.key
    read = resp.command("HMGET", key, "fence", "owner", "format")
    watch, life = resp.command("WATCH", key), resp.command("PTTL", key)
    return watch + read + life + resp.command("MULTI")


def _is_fenced(look: Sequence[Any], write: Write) -> bool:
    """Whether the books have this very fence and format, as scripts compare them."""
    if any(isinstance(answer, Exception) for answer in look):
        return False
    own, _, own_format = write.fence.encode().rpartition(b" ")
    fence, owner, stored_format = look[1]
    return (
        bool(own and fence)
        and b"%b %b" % (fence, owner or b"") == own
        and (stored_format in (None, own_format))
    )


def _life(look: Sequence[Any], write: Write) -> list[bytes]:
    """The command that has the books go within half of the rows' life, where they would not."""
    left, half = int(look[2]), int(write.life or 0) * 500
    is_due = bool(write.life) and (left < 0 or left > half)
    return [resp.command("PEXPIRE", write.key, str(half))] if is_due else []


def _rows(write: Write, block: Sequence[Rows]) -> bytes:
    """The command that writes rows: MSETEX came with Redis 8.4 and Valkey 9.1."""
    tails = [tail for rows in block for tail in rows.sent or sent(rows)]
    head = f"${len(write.key) + 1 + len(block[0].hashes[0])}\r\n{write.key}:"
    packed = resp.encoded(head + head.join(tails))
    if not write.life:
        return resp.command("MSET", more=(2 * len(tails), packed))
    count, ends = str(len(tails)), resp.strings(["EX", write.life])
    return resp.command("MSETEX", count, more=(2 * len(tails) + 2, packed + ends))


def sent(rows: Rows) -> list[str]:
    """Each row as it is sent behind the key of the books, of which its own key begins with: a hash, and the row's text."""
    texts = resp.each(rows.texts)
    return [f"{hash}\r\n{text}" for hash, text in zip(rows.hashes, texts, strict=True)]


def _are_done(answers: Sequence[Any]) -> bool:
    """Whether the last reply is that of a transaction of which each command did what it should; it is None where the books have changed."""
    done = answers[-1]
    return isinstance(done, list) and not any(isinstance(each, Exception) for each in done)


def _is_lacking(answer: Any) -> bool:
    text = str(answer) if isinstance(answer, Exception) else ""
    return any(words in text for words in _LACKING)

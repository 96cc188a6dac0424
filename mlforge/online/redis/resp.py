"""Encoding of Redis's protocol: whole commands at once, not part by part."""

from __future__ import annotations

from collections.abc import Sequence


def command(*parts: str, more: tuple[int, bytes] = (0, b"")) -> bytes:
    """A packed command of some parts, followed by a number of parts that are packed already."""
    count, packed = more
    return b"*%d\r\n%b%b" % (len(parts) + count, strings(parts), packed)


def strings(parts: Sequence[str]) -> bytes:
    """The parts of a command, each with its length in bytes."""
    return encoded("".join(each(parts)))


def each(parts: Sequence[str]) -> list[str]:
    """The parts of a command one by one, as `strings` of each before it is encoded."""
    if all(map(str.isascii, parts)):
        return [f"${len(part)}\r\n{part}\r\n" for part in parts]
    return [f"${len(encoded(part))}\r\n{part}\r\n" for part in parts]


def encoded(text: str) -> bytes:
    """The bytes of a text; lone surrogates stand for bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def prefixed(head: str, tails: Sequence[str]) -> bytes:
    """As `strings` of the head with each tail; the tails are of one length, and all is ASCII."""
    if not tails:
        return b""
    start = f"${len(head) + len(tails[0])}\r\n{head}"
    return (start + f"\r\n{start}".join(tails) + "\r\n").encode()


def blobs(parts: Sequence[bytes]) -> bytes:
    """As `strings`, of bytes."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def alike(parts: Sequence[bytes]) -> bytes:
    """As `blobs`, of parts of one length."""
    if not parts:
        return b""
    start = b"$%d\r\n" % len(parts[0])
    return start + (b"\r\n" + start).join(parts) + b"\r\n"


def pairs(firsts: Sequence[bytes], seconds: Sequence[bytes]) -> bytes:
    """As `blobs`, of parts from both by turns."""
    return b"".join(
        [
            b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(first), first, len(second), second)
            for first, second in zip(firsts, seconds, strict=True)
        ]
    )

"""Blocks of commands on their way to the nodes of a cluster: where each goes, and what its replies say of slots that moved.

Pure but for the errors of the client library: who sends, waits and looks the slots up again is told, and tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from mlforge.online.redis import resp

Address: TypeAlias = tuple[str, int]
_ASKING = resp.command("ASKING")
_MOVING = (AskError, TryAgainError)  # MOVED is a kind of ASK to redis-py
_UNREACHED = 3
"""Rounds in which a node does not answer, or the cluster is down: then the caller learns of it."""
_MOVED = 14
"""Rounds in which a slot is on its way from one node to another: with the pauses between them some six seconds."""


@dataclass(frozen=True, slots=True)
class Block:
    """Packed commands on keys of one slot, which are sent together and may be sent again: with the number of their replies."""

    slot: int
    commands: bytes
    replies: int = 1

    @classmethod
    def of(cls, key: str, commands: bytes, replies: int = 1) -> Block:
        """The block of commands on keys that lie where this key does."""
        return cls(slot_of(key), commands, replies)


@dataclass(frozen=True, slots=True)
class Parcel:
    """Commands that one node is sent in a round: the positions of the blocks, the commands, and the number of replies."""

    address: Address
    positions: Sequence[int]
    commands: bytes
    replies: int


class Rounds:
    """The rounds that it takes to answer some blocks; `answers` has the replies of each when none is open any more."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.answers: list[list[Any]] = [[] for _ in blocks]
        self._blocks = blocks
        self._open: dict[int, Address | None] = dict.fromkeys(range(len(blocks)))
        self._unreached = self._moved = 0
        self._fault: Exception = ClusterDownError("no node has the slot")

    @property
    def is_open(self) -> bool:
        """Whether blocks are yet to be answered."""
        return bool(self._open)

    def parcels(self, owner: Callable[[int], Address | None]) -> list[Parcel]:
        """The parcels that are to be sent now, one a node. owner: the node that a slot is known to be on; None for none."""
        groups: dict[Address, list[int]] = {}
        for position, asked in self._open.items():
            address = asked or owner(self._blocks[position].slot)
            if address is not None:
                groups.setdefault(address, []).append(position)
        return [self._parcel(address, positions) for address, positions in groups.items()]

    def note(self, parcel: Parcel, outcome: list[Any] | Exception) -> None:
        """Take the replies to a parcel, or the error that came in place of them."""
        if isinstance(outcome, Exception):
            self._fault = outcome
            return
        replies = iter(outcome)
        for position in parcel.positions:
            if self._open[position] is not None:
                next(replies)  # that to ASKING
            answer = [next(replies) for _ in range(self._blocks[position].replies)]
            moving = next((reply for reply in answer if _is_of_cluster(reply)), None)
            if moving is None:
                self.answers[position] = answer
                del self._open[position]
            else:
                self._fault = moving
                self._open[position] = _asked(moving)

    def close_round(self) -> float:
        """The seconds to wait before the next round; raises the client's error where there have been enough of them."""
        if not self._open:
            return 0.0
        if isinstance(self._fault, _MOVING):
            self._moved += 1
        else:
            self._unreached += 1
            self._open = dict.fromkeys(self._open)
        if self._unreached >= _UNREACHED or self._moved >= _MOVED:
            raise self._fault
        rounds = self._unreached + self._moved
        if isinstance(self._fault, AskError) and self._moved == 1:
            return 0.0
        return float(min(0.5, 0.025 * 2**rounds))

    def _parcel(self, address: Address, positions: list[int]) -> Parcel:
        commands, replies = [], 0
        for position in positions:
            block = self._blocks[position]
            if self._open[position] is not None:
                commands.append(_ASKING)
                replies += 1
            commands.append(block.commands)
            replies += block.replies
        return Parcel(address, positions, b"".join(commands), replies)


def is_moving(answers: Sequence[Any]) -> bool:
    """Whether replies tell of a slot that is not, or not wholly, on the node that was asked."""
    return any(map(_is_of_cluster, answers))


@lru_cache(maxsize=65_536)
def slot_of(key: str) -> int:
    """The slot of a key: of what is between its first braces, if it has some."""
    return int(key_slot(key.encode()))


def _is_of_cluster(reply: Any) -> bool:
    return isinstance(reply, (AskError, TryAgainError, ClusterDownError))


def _asked(error: Exception) -> Address | None:
    """The node that is to be asked just this once; None where the slot is looked up again."""
    if isinstance(error, AskError) and not isinstance(error, MovedError):
        return str(error.host), int(error.port)
    return None

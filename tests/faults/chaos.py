"""Random faults against a real watcher, two workers and a server, for as long as one likes.

    python -m tests.faults.chaos --seconds 600 --seed 7

A round does a few things at once: files come, change and go, processes are killed or stopped, the server
is restarted, flushed, filled, taken back to an old copy. Then all is left alone, and what is served
must be what the good files say, while somebody has been reading all the time. The seed decides what is
done and in which order; what the processes were at when it was done, it cannot.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from redis import Redis
from redis.exceptions import RedisError

import mlforge
import worker
from mlforge.errors import NotServed
from mlforge.online import RedisStore
from mlforge.online.steps import answered
from mlforge.retrieval.online_rows import check_missing
from tests.support import contents
from tests.support.agreement import TALLY
from tests.support.faults import Copy, Plant, Proxy, Supervised, copy_of, places, restore
from tests.support.invariant import Witness, assert_invariant
from tests.support.workers import eventually, purchases, write
from worker.project import Project
from worker.service.embedded_redis import EmbeddedServer

ROUNDS = 15
"""After so many a plant is torn down, and another begins with nothing."""
SETTLES_S = 60.0
"""Within which all must be right after the last fault."""
FEATURES = ("spend", "daily", "newest")
USERS = range(1, 9)
Rows = list[tuple[int, int, float]]


class AsAsked(RedisStore):
    """An online store whose missing rows are what `get_online_features` makes of them."""

    def fetch(self, requests: Any) -> Any:
        answers = super().fetch(requests)
        served = [
            (name, books, rows)
            for (name, _), (books, rows) in zip(requests, answers, strict=True)
            if books is not None and books.target is not None
        ]
        answered(check_missing(served, self))
        return answers


@dataclass
class World:
    """A plant, its server, and what has been done to them."""

    folder: Path
    chance: random.Random
    rows: dict[str, Rows] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    kept: dict[str, bytes] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    copies: list[Copy] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    made: int = 0

    def __enter__(self) -> World:
        self.server = EmbeddedServer(self.folder / "redis")
        self.server.start()
        self.port = urlsplit(self.server.url).port or 0
        self.direct = Redis.from_url(self.server.url)
        self.proxy = Proxy(self.port).__enter__()
        url = self.server.url.replace(f":{self.port}/", f":{self.proxy.port}/")
        place = self.folder / "plant"
        place.mkdir()
        self.plant = Plant(place, url)
        for _ in range(10):
            self.put(self.new_name(), self.some_rows())
        self.plant.run_all()
        return self

    def __exit__(self, *_: object) -> None:
        with redirect_stdout(io.StringIO()):  # the log is kept in the folder
            self.plant.stop()
        self.proxy.__exit__(None, None, None)
        self.direct.close()
        self.server.stop()

    # -- files

    @property
    def drops(self) -> Path:
        return self.plant.folder / "drops"

    def new_name(self) -> str:
        self.made += 1
        deep = self.chance.choice(["", "", "deep/"])
        return f"{deep}{self.made:05}.parquet"

    def some_rows(self, late: bool = False) -> Rows:
        """A few purchases, after all others or, late ones, anywhere before."""
        now = self.made * 60
        return [
            (
                self.chance.choice(USERS),
                self.chance.randrange(now + 1) if late else now + self.chance.randrange(60),
                float(self.chance.randrange(1, 100)),
            )
            for _ in range(self.chance.randrange(1, 6))
        ]

    def put(self, name: str, rows: Rows) -> None:
        write(self.drops / name, purchases(*rows))
        self.rows[name] = rows
        self.bad.discard(name)
        self.kept.pop(name, None)
        self.touched.add(name)
        TALLY["drops"] += 1

    def untouched(self) -> list[str]:
        """Good files that this round has left alone."""
        return sorted(set(self.rows) - self.touched)

    def project(self) -> Project:
        """The project of the definitions as they are now."""
        return self.plant.reopened()

    def workers(self) -> list[Supervised]:
        return self.plant.supervised[1:]


# -- what may be done


def drop(world: World) -> None:
    world.put(world.new_name(), world.some_rows())


def late(world: World) -> None:
    world.put(world.new_name(), world.some_rows(late=True))


def many(world: World) -> None:
    for _ in range(world.chance.randrange(5, 30)):
        drop(world)


def amend(world: World) -> None:
    if files := world.untouched():
        name = world.chance.choice(files)
        user, second, amount = world.rows[name][0]
        world.put(name, [(user, second, amount + 1.0), *world.rows[name][1:]])


def remove(world: World) -> None:
    if len(files := world.untouched()) > 8:
        name = world.chance.choice(files)
        (world.drops / name).unlink()
        del world.rows[name]
        world.touched.add(name)


def rename(world: World) -> None:
    if files := world.untouched():
        old, new = world.chance.choice(files), world.new_name()
        (world.drops / new).parent.mkdir(exist_ok=True)
        (world.drops / old).rename(world.drops / new)
        world.rows[new] = world.rows.pop(old)
        world.touched |= {old, new}


def corrupt(world: World) -> None:
    """A new file that is none, or a good one replaced by such."""
    files = world.untouched()
    if len(files) > 8 and world.chance.random() < 0.5:
        name = world.chance.choice(files)
        world.kept[name] = purchases(*world.rows.pop(name))
    else:
        name = world.new_name()
        world.bad.add(name)
    world.touched.add(name)
    write(world.drops / name, b"PAR1" + bytes(world.chance.randrange(50, 90)) + b"PAR1")


def mend(world: World) -> None:
    """A file that is none goes, or becomes one."""
    if spoilt := sorted((world.bad | set(world.kept)) - world.touched):
        name = world.chance.choice(spoilt)
        if name in world.kept or world.chance.random() < 0.5:
            world.put(name, world.some_rows(late=True))
        else:
            (world.drops / name).unlink()
            world.bad.discard(name)
            world.touched.add(name)


def slowly(world: World) -> None:
    """A file that is written in pieces, in place."""
    name, rows = world.new_name(), world.some_rows()
    whole = purchases(*rows)
    path = world.drops / name
    path.parent.mkdir(exist_ok=True)
    contents.note(whole)
    with path.open("wb") as file:
        for start in range(0, len(whole), 400):
            file.write(whole[start : start + 400])
            file.flush()
            time.sleep(world.chance.random() / 10)
    world.rows[name] = rows
    world.touched.add(name)
    TALLY["drops"] += 1


def kill_worker(world: World) -> None:
    world.chance.choice(world.workers()).kill()


def kill_watcher(world: World) -> None:
    world.plant.supervised[0].kill()


def end_worker(world: World) -> None:
    world.chance.choice(world.workers()).process.terminate()


def at_a_step(world: World) -> None:
    """The next process that comes to some step does something to itself there."""
    deeds = ["die", "die", "kill the worker", "run out of memory"]
    steps = sorted((places(mlforge) | places(worker)) - {"job.taken", "remove.hidden"})
    world.plant.order(world.chance.choice(steps), world.chance.choice(deeds))
    drop(world)


def die_with_a_job(world: World) -> None:
    world.plant.order("job.taken")
    drop(world)


def sleep_past_a_lease(world: World) -> None:
    """A worker and its fork stop in the middle of a push, and go on after others have done their work."""
    world.plant.order("push.put", "stop")
    drop(world)
    with suppress(AssertionError):
        fork = eventually(lambda: world.plant.obeyed("push.put"), 10)
        with suppress(OSError, IndexError):
            parent = int(Path(f"/proc/{fork}/stat").read_text().rpartition(")")[2].split()[1])
            if any(each.pid == parent for each in world.workers()):
                os.kill(parent, signal.SIGSTOP)
                world.stopped += [fork, parent]
    for done in (world.plant.folder / "faults").glob("done *"):
        done.unlink()


def flush(world: World) -> None:
    world.direct.flushall()


def restart_server(world: World) -> None:
    if world.chance.random() < 0.5:
        world.server.stop()
    else:
        os.kill(world.server.pid, signal.SIGKILL)
        eventually(lambda: not world.server.alive)
    time.sleep(world.chance.random())
    world.server.start()


def copy(world: World) -> None:
    world.copies.append(copy_of(world.direct))


def go_back(world: World) -> None:
    """The server has what it had some time ago."""
    if world.copies:
        restore(world.direct, world.chance.choice(world.copies))


def fill(world: World) -> None:
    world.direct.config_set("maxmemory", "1")
    drop(world)
    time.sleep(world.chance.random())
    world.direct.config_set("maxmemory", "0")


def evict(world: World) -> None:
    policy = world.chance.choice(["allkeys-lru", "allkeys-random", "volatile-ttl"])
    world.direct.config_set("maxmemory-policy", policy)
    used = world.direct.info("memory")["used_memory"]
    world.direct.config_set("maxmemory", str(int(used * world.chance.uniform(0.5, 1.0))))
    drop(world)
    time.sleep(world.chance.random())
    world.direct.config_set("maxmemory", "0")
    world.direct.config_set("maxmemory-policy", "noeviction")


def lose_answers(world: World) -> None:
    world.proxy.drop_answers = world.chance.randrange(1, 30)
    drop(world)


def slow_down(world: World) -> None:
    world.proxy.delay_s = 0.02
    drop(world)


def cut(world: World) -> None:
    world.proxy.cut_all()


def redefine(world: World) -> None:
    """Another aggregate, or one less: a MINOR or a MAJOR version."""
    file = world.plant.folder / "definitions.py"
    one, more = '{"amount": ["sum", "count"]}', '{"amount": ["sum", "count", "max"]}'
    text = file.read_text()
    changed = text.replace(more, one) if more in text else text.replace(one, more)
    hidden = file.with_suffix(".tmp")
    hidden.write_text(changed)
    hidden.rename(file)


def misdefine(world: World) -> None:
    """An edit that does not import, and is undone."""
    file = world.plant.folder / "definitions.py"
    text = file.read_text()
    file.write_text(text + "\nthis is not python\n")
    drop(world)
    time.sleep(world.chance.random())
    file.write_text(text)


FILES = (drop, drop, late, many, amend, amend, remove, rename, corrupt, mend, slowly)
FAULTS = (kill_worker, kill_watcher, end_worker, at_a_step, at_a_step, at_a_step, die_with_a_job,
          sleep_past_a_lease, flush, restart_server, copy, go_back, fill, evict, lose_answers,
          slow_down, cut, redefine, misdefine)  # fmt: skip
Deed = Callable[[World], None]


# -- rounds


def chosen(chance: random.Random) -> list[Deed]:
    """What a round does."""
    deeds: list[Deed] = [
        *chance.choices(FILES, k=chance.randrange(1, 5)),
        *chance.choices(FAULTS, k=chance.randrange(1, 4)),
    ]
    chance.shuffle(deeds)
    return deeds


def play(world: World, deeds: list[Deed]) -> float:
    """One round; how long it took to be right again. Fails if it is not."""
    world.touched.clear()
    asked = {name: [{"user_id": user} for user in USERS] for name in FEATURES}
    watching = AsAsked.from_url(world.server.url)
    witness = Witness(world.project(), asked, online=watching, pruned=True)
    with witness:
        for deed in deeds:
            TALLY[f"fault {deed.__name__}"] += 1
            with suppress(RedisError):
                deed(world)
            time.sleep(world.chance.random() / 4)
        leave_alone(world)
        bad = dict.fromkeys(FEATURES, sorted(world.bad))
        kept = {name: dict(world.kept) for name in FEATURES}
        took = assert_invariant(
            world.project(), bad=bad, kept=kept, pruned=True, deadline_s=SETTLES_S
        )
    watching.close()
    TALLY["refused to a reader"] += witness.refused.total()
    TALLY["versions"] += sum(map(len, witness.versions.values()))
    return took


def leave_alone(world: World) -> None:
    """End whatever goes on."""
    world.proxy.drop_answers, world.proxy.delay_s = 0, 0.0
    if world.stopped:
        time.sleep(11)  # past their leases
    for process in world.stopped:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
    world.stopped.clear()
    for order in (world.plant.folder / "faults").iterdir():
        order.unlink(missing_ok=True)


@contextmanager
def world_of(chance: random.Random) -> Iterator[World]:
    """A world that begins with ten files; its folder is kept if anything fails."""
    folder = Path(tempfile.mkdtemp(prefix="mlforge-chaos-"))
    with World(folder, chance) as world:
        yield world
    shutil.rmtree(folder, ignore_errors=True)


def run(seconds: float, seed: int, say: Callable[[str], None]) -> int:
    """Play for so long; how many rounds went wrong."""
    began, wrong, episode = time.monotonic(), 0, 0

    def clock() -> str:
        return f"{time.monotonic() - began:6.0f} s"

    while time.monotonic() - began < seconds:
        chance, names = random.Random(f"{seed} {episode}"), "at the start"
        try:
            with world_of(chance) as world:
                assert_invariant(world.project(), deadline_s=SETTLES_S)
                for _ in range(ROUNDS):
                    if time.monotonic() - began >= seconds:
                        break
                    TALLY["rounds"] += 1
                    deeds = chosen(chance)
                    names = ", ".join(deed.__name__ for deed in deeds)
                    say(f"{clock()} {names}: right after {play(world, deeds):.1f} s")
        except (AssertionError, NotServed):
            wrong += 1
            say(f"{clock()} WRONG, --seed {seed}, episode {episode}, {world.folder}: {names}")
            say(traceback.format_exc(limit=3))
        episode += 1
    counts = Counter({name: n for name, n in TALLY.items() if not name.startswith("fault ")})
    faults = {name.removeprefix("fault "): n for name, n in TALLY.items() if "fault " in name}
    say(f"{clock()} seed {seed}, {episode} plants: " + _listed(counts) + f", {wrong} mismatches")
    say("done: " + _listed(faults))
    return wrong


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="when to stop (60)")
    parser.add_argument("--seed", type=int, default=None, help="what is done; a random one")
    options = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    return 1 if run(options.seconds, seed, say) else 0


if __name__ == "__main__":
    sys.exit(main())

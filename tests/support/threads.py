"""A cluster of threads of this process: what any cluster does with a build's tasks, without one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlforge.runners import executor
from mlforge.runners.cluster import ClusterRunner


class Threads(ClusterRunner):
    """Runs all orders at once, each in a thread of its own; `twice`: and each by a twin as well."""

    name = kind = "threads"

    def __init__(self, twice: bool = False, **options: Any) -> None:
        super().__init__("here", **options)
        self.twice, self.orders = twice, list[str]()

    def answers(self, orders: Sequence[str]) -> Sequence[str]:
        self.orders.extend(orders)
        sent = [*orders, *orders] if self.twice else orders
        with ThreadPoolExecutor(len(sent)) as pool:
            return [*pool.map(executor.answered, sent)][: len(orders)]

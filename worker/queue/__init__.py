"""The queue and the worker classes; the only package that knows rq.

    rq worker -w worker.queue.ForgeWorker -S json mlforge

is all that a supervisor needs to run: serializer, intervals and the project's own queue are set right by
the class, whatever the command line says.
"""

from worker.queue.forking import ForgeWorker
from worker.queue.rq_queue import (
    QUEUE,
    JobQueue,
    WorkerState,
    current_job_id,
    enqueue,
    give_back,
    queue_of,
)
from worker.queue.rq_worker import ForgeSimpleWorker

__all__ = [
    "QUEUE",
    "ForgeSimpleWorker",
    "ForgeWorker",
    "JobQueue",
    "WorkerState",
    "current_job_id",
    "enqueue",
    "give_back",
    "queue_of",
]

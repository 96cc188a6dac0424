"""State that the processes of a project share in Redis: work queue, event log, counters."""

"""Orchestrators that run a project's builds, or wait for what its watcher publishes."""

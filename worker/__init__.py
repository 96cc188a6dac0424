"""Watches folders and keeps features fresh: file events, jobs, refresh, push."""

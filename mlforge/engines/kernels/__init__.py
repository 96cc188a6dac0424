"""Aggregates of many overlapping windows of a timeline, each by the way that costs least: what engines compute with."""

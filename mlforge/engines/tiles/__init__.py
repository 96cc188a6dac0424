"""Tiles: partial aggregates of dense events, one row for each entity and interval."""

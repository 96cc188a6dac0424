"""From file events to requests."""

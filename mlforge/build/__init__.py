"""Builds: from partials to a published version."""

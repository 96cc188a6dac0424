"""The release of mlforge that is at work."""

RELEASE = "0.5.0"
"""Written here alone: `pyproject.toml` reads it, and no process has to look it up among the packages that are installed."""

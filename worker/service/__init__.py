"""The processes that people start, and their commands."""

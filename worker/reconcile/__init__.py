"""Comparing what is with what should be, at intervals."""

"""The command line: parse, call, print."""

from mlforge.cli.main import main

__all__ = ["main"]

"""Benchmarks: ratios against references that are measured in the same run, by turns."""

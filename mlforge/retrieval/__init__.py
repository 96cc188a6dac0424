"""Answers: training sets, online values, and why a value is what it is."""

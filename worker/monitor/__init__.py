"""Screens and metrics: the state of a project for people and for monitoring."""

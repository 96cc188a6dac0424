"""Profiles of the values of tables, which merge exactly, and the distance between two of them."""

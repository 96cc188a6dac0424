"""A small language for derived columns: its grammar, its types, and its meaning in plain Python.

`parser` reads a text, `checker` gives every part of it a kind, `row` evaluates it for one row.
`mlforge.compilers.expression_compiler` evaluates it for a frame; both give the same values.
"""

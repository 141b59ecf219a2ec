"""Units: what figures are counted in."""

GIB = 2**30
"""Bytes of a GiB."""

"""Runs: a folder on disk, the events in it, and the process that owns it."""

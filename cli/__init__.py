"""Commands: one file a noun."""

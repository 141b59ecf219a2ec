"""Auditing: what one row can have wrong, what the whole set can, and the figures of both."""

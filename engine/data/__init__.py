"""Data: what a file holds, and exactly which tokens of it are trained."""

"""Recipes: what changes the result of a run, as data; and the registry that keeps them."""

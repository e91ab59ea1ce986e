"""Recipes: notebooks that run on a user's own file, and what they are made of."""

from .runner import available, copy, defaults, folder, notebook, run

__all__ = ["available", "copy", "defaults", "folder", "notebook", "run"]

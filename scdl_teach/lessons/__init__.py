"""Judges of the exercises and figures of single lessons, apart from the notebooks: one module a lesson."""

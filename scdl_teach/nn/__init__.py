"""Layers, likelihoods and losses that several systems share; each has a test by hand."""

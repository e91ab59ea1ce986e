"""Filling in what a droplet missed: imputation and denoising (review section 4.1.3.1)."""

"""New cells from noise (section 4.1.3.4)."""

"""Which types share a spot (section 4.4)."""

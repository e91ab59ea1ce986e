"""The networks that everything else is made of (section 2)."""

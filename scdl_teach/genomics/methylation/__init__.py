"""DNA methylation (section 4.2.2)."""

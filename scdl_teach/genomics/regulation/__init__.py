"""Transcription factors and their genes (section 4.2.3)."""

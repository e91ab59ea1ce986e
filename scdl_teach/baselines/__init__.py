"""The classical rivals: what a deep system has to beat."""

"""The command line ``scdl-teach``."""

"""Data sets as published, one per file."""

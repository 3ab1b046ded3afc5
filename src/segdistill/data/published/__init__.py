"""Data sets as they were published, one a file."""

"""One recipe in, one run out."""

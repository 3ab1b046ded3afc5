"""Looking at data and teacher before any long work."""

"""What a report claims of runs, in words."""

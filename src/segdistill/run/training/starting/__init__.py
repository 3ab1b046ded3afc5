"""What a training works out before step 1, and remembers for the next one of the same networks and data."""

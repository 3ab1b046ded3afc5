"""What a training looks at and works out before step 1, and remembers for the next one of the same kind."""

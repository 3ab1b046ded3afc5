"""What `predict` may write over: nothing of the run's data, and only what it wrote itself."""

"""What a training step updates besides the trained weights."""

"""Teacher and student, their taps, and the terms between them."""

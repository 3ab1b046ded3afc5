"""How the user's files lie: which image belongs to which mask, and in which split."""

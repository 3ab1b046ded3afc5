"""Networks that are not this package's: wrapped, relabelled, shown in another way."""
